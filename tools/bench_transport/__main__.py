"""Camera steps per second from actors to a learner, beside other transports: `python -m tools.bench_transport`.

Run it on a machine that has nothing else to do. One step is three pictures of 224x224x3. What is ours is committed to
disk before it is acknowledged, and encrypted unless it says `plain`; the others are neither. The actors' spools lie in
memory by default, for on real robots they are other machines' disks. Writes JSON and a picture, prints a table; ends
with 1 where a figure is not as asked.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from serl_launcher.events import encode_observation
from tools import keys
from tools.bench_disk import sync_results
from tools.bench_results import Result, table_of, write_results
from tools.bench_transport.chart import draw_scaling
from tools.bench_transport.others import measure_peer
from tools.bench_transport.ours import Throughput, measure_ours
from tools.bench_workload import bench_robot, make_frames, measure, observe

PARTS = ("peers", "ours", "scaling")
RAW_STEPS_PER_S, JPEG_STEPS_PER_S, P99_MS, PEER_RATIO = 1200.0, 2000.0, 25.0, 3.0
FLOOR = "encrypted sockets alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run of the benchmark keeps its files, and how long it measures."""

    folder: Path
    spools: Path
    keys_dir: Path
    frames: Path
    seconds: float
    reverb_python: str | None

    def ours(self, name: str, *, encoding: str, num_actors: int, is_encrypted: bool = True) -> Throughput:
        """Measures hiors once, from empty directories."""
        sys.stderr.write(f"hiors {name}, {num_actors} actors ...\n")
        for path in (self.folder / "learner", self.spools / "actors"):
            shutil.rmtree(path, ignore_errors=True)
        found = measure_ours(
            self.folder / "learner", self.spools / "actors", name=f"hiors {name}", encoding=encoding,
            num_actors=num_actors, keys_dir=self.keys_dir if is_encrypted else None, seconds=self.seconds,
        )  # fmt: skip
        sys.stderr.write(f"  {found.steps_per_s:.0f} steps/s, p99 {found.p99_ms:.1f} ms\n")
        return found

    def peer(self, script: str, name: str, num_actors: int, python: str = sys.executable) -> Throughput:
        """Measures another transport once."""
        sys.stderr.write(f"{name}, {num_actors} actors ...\n")
        found = measure_peer(script, self.frames, name=name, num_actors=num_actors, seconds=self.seconds, python=python)
        sys.stderr.write(f"  {found.steps_per_s:.0f} steps/s, p99 {found.p99_ms:.1f} ms\n")
        return found


def main(arguments: Sequence[str]) -> int:
    """Runs the parts that were asked for; returns 0 where every figure is as asked."""
    chosen = _parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="bench-transport-", dir=chosen.directory))
    spools = Path(tempfile.mkdtemp(prefix="bench-spools-", dir=chosen.spools))
    try:
        place = _prepare(folder, spools, chosen)
        results, found = _run(place, chosen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(spools, ignore_errors=True)
    sys.stdout.write(_patterns(found) + "\n\n" + table_of(results) + "\n")
    about = {"num_cpus": os.cpu_count(), "machine": platform.machine(), "load_average": os.getloadavg()}
    patterns = [asdict(each) for each in found]
    write_results(Path(chosen.output), results, spools=chosen.spools, patterns=patterns, **about)
    return int(any(each.is_met is False for each in results))


def _prepare(folder: Path, spools: Path, chosen: argparse.Namespace) -> Place:
    frames = make_frames(24, bench_robot())
    np.save(folder / "frames.npy", frames)
    keys.init(folder / "keys")
    for number in range(max([1, 8, *chosen.scaling])):
        keys.add(folder / "keys", f"actor-{number}")
    return Place(
        folder=folder, spools=spools, keys_dir=folder / "keys", frames=folder / "frames.npy", seconds=chosen.seconds,
        reverb_python=chosen.reverb_python,
    )  # fmt: skip


def _run(place: Place, chosen: argparse.Namespace) -> tuple[list[Result], list[Throughput]]:
    found: list[Throughput] = []
    results = [_encoding_cost(place), *sync_results(place.folder)]
    for num_actors in chosen.actors:
        ours = _ours(place, num_actors) if "ours" in chosen.only else {}
        peers = _peers(place, num_actors) if "peers" in chosen.only else []
        found += [*ours.values(), *peers]
        results += _compared(ours, peers, num_actors)
    if "scaling" in chosen.only:
        curves = {
            name: [
                place.ours(name, encoding="jpeg", num_actors=count, is_encrypted=encrypted) for count in chosen.scaling
            ]
            for name, encrypted in (("jpeg", True), ("jpeg plain", False))
        }
        found += [each for curve in curves.values() for each in curve]
        draw_scaling(curves, Path(chosen.chart))
    return results, found


def _encoding_cost(place: Place) -> Result:
    spec, frames = bench_robot(), np.load(place.frames)
    cost = measure(lambda: [encode_observation(observe(frames, step, spec), spec) for step in range(200)])
    return Result("encoding a step as JPEG", 1e3 * cost.cpu_s / 200, "ms CPU")


def _ours(place: Place, num_actors: int) -> dict[str, Throughput]:
    return {
        "raw": place.ours("raw", encoding="raw", num_actors=num_actors),
        "raw plain": place.ours("raw plain", encoding="raw", num_actors=num_actors, is_encrypted=False),
        "jpeg": place.ours("jpeg", encoding="jpeg", num_actors=num_actors),
        "jpeg plain": place.ours("jpeg plain", encoding="jpeg", num_actors=num_actors, is_encrypted=False),
    }


def _peers(place: Place, num_actors: int) -> list[Throughput]:
    wanted = [
        ("bare_curve", FLOOR, sys.executable),
        ("lz4_pickle", "lz4+pickle REQ/REP", sys.executable),
        ("lerobot_grpc", "LeRobot gRPC", sys.executable),
    ]
    if place.reverb_python is None:
        sys.stderr.write("dm-reverb is left out: give --reverb-python, an interpreter that has dm-reverb 0.14.\n")
    else:
        wanted.append(("reverb_insert", "dm-reverb 0.14", place.reverb_python))
    found = []
    for script, name, python in wanted:
        try:
            found.append(place.peer(script, name, num_actors, python))
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as exc:  # What was measured before is still told.
            sys.stderr.write(f"{name} is left out: {exc}\n")
    return found


def _compared(ours: dict[str, Throughput], peers: list[Throughput], num_actors: int) -> list[Result]:
    results = []
    where = f"{num_actors} actor{'s' if num_actors > 1 else ''}"
    if ours:
        raw, jpeg = ours["raw"], ours["jpeg"]
        results += [
            Result(f"raw, {where}", raw.steps_per_s, "steps/s", at_least=RAW_STEPS_PER_S),
            Result(f"raw p99, {where}", raw.p99_ms, "ms", at_most=P99_MS),
            Result(f"JPEG, {where}", jpeg.steps_per_s, "steps/s", at_least=JPEG_STEPS_PER_S),
            Result(f"JPEG p99, {where}", jpeg.p99_ms, "ms", at_most=P99_MS),
            Result(f"encryption of raw, {where}", ours["raw plain"].steps_per_s / raw.steps_per_s, "x slower"),
            Result(f"encryption of JPEG, {where}", ours["jpeg plain"].steps_per_s / jpeg.steps_per_s, "x slower"),
        ]
        for peer in peers:
            least = None if peer.name == FLOOR else 1.0 if "reverb" in peer.name else PEER_RATIO
            results.append(
                Result(f"raw to {peer.name}, {where}", raw.steps_per_s / peer.steps_per_s, "x", at_least=least)
            )
    return results


def _patterns(found: list[Throughput]) -> str:
    rows = ["| pattern | actors | steps/s | p50 ms | p99 ms | CPU ms/step |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {each.name} | {each.num_actors} | {each.steps_per_s:.0f} | {each.p50_ms:.1f} | {each.p99_ms:.1f} | "
        f"{each.cpu_ms_per_step:.2f} |"
        for each in found
    ]
    return "\n".join(rows)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_transport", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="time that each pattern is measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to measure")
    parser.add_argument("--actors", nargs="+", type=int, default=[1, 8], help="numbers of actors to compare with")
    parser.add_argument("--scaling", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="numbers of actors to plot")
    parser.add_argument("--reverb-python", help="interpreter of an environment with dm-reverb 0.14")
    parser.add_argument("--directory", help="where the learner's files go, then are removed; a temporary folder")
    parser.add_argument("--spools", default="/dev/shm", help="where the actors' spools lie")
    parser.add_argument("--output", default="outputs/bench/transport.json", help="the figures as JSON")
    parser.add_argument("--chart", default="outputs/bench/transport_scaling.png", help="steps and CPU over actors")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
