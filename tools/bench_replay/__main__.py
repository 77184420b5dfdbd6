"""Measures the replay beside LeRobot in one run: `python -m tools.bench_replay [--quick] [--only PART ...]`.

Run it on a machine that has nothing else to do. Writes JSON and prints a table; ends with 1 where a figure is not as
asked.
"""

import argparse
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PARTS = ("record", "sample", "batches", "open", "ingest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured."""

    num_steps: int
    num_episodes: int
    seconds: float
    num_batches: int
    sizes: tuple[int, ...]


SMALLER_QUALITY = 85

FULL = Scale(num_steps=200, num_episodes=9, seconds=20.0, num_batches=100, sizes=(10_000, 50_000, 200_000))
QUICK = Scale(num_steps=40, num_episodes=2, seconds=2.0, num_batches=4, sizes=(1000, 2000))


def main(arguments: list[str]) -> int:
    """Runs the parts that were asked for; returns 0 where every figure is as asked."""
    chosen = _parse(arguments)
    scale = QUICK if chosen.quick else FULL
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = Path(tempfile.mkdtemp(prefix="bench-replay-", dir=chosen.directory))
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    logging.getLogger("lerobot").setLevel(logging.ERROR)
    spools = Path(tempfile.mkdtemp(prefix="bench-spools-", dir=chosen.spools))
    try:
        results, backend = _run(chosen.only, scale, folder, spools)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(spools, ignore_errors=True)
    from tools.bench_results import table_of, write_results

    sys.stdout.write(table_of(results) + "\n")
    write_results(Path(chosen.output), results, **_about(backend, quick=chosen.quick, spools=str(chosen.spools)))
    return int(any(each.is_met is False for each in results))


def _run(parts: list[str], scale: Scale, folder: Path, spools: Path) -> tuple[list, str]:
    """Returns the figures of the chosen parts, and the video decoder that LeRobot used."""
    import torch

    from tools.bench_disk import sync_results
    from tools.bench_replay import ingest, sampling, sizes

    torch.set_num_threads(1)
    backend = sampling.best_video_backend()
    results = sync_results(folder)
    if {"record", "sample", "batches"} & set(parts):
        recorded = _recorded(
            scale, folder, ("image", "video", "streaming") if "record" in parts else ("image", "video")
        )
        results += recorded if "record" in parts else []
    if "sample" in parts:
        results += _sampled(scale, folder, backend)
    if "batches" in parts:
        _tell("drawing batches")
        results += sampling.batches_ours(folder / "dataset", num_batches=scale.num_batches)
        fewer = max(4, scale.num_batches // 10)
        results += sampling.batches_lerobot(folder / "video", form="video", backend=backend, num_batches=fewer)
    if "open" in parts:
        _tell("writing and opening large datasets")
        results += sizes.open_results(folder / "growing", list(scale.sizes))
    if "ingest" in parts:
        _tell("ingest beside sealing and checkpoints")
        results += ingest.ingest_results(folder / "ingest", spools, seconds=scale.seconds)
    return results, backend


def _recorded(scale: Scale, folder: Path, forms: tuple[str, ...]) -> list:
    """Records the same pictures with hiors (into `dataset`) and with LeRobot (into a folder per form)."""
    from tools.bench_replay import recording
    from tools.bench_workload import bench_robot, make_frames

    spec = bench_robot()
    frames = make_frames(scale.num_steps, spec)
    _tell("recording")
    steps = {"num_steps": scale.num_steps}
    results = recording.record_ours(folder, frames, spec, num_episodes=scale.num_episodes, **steps)
    for form in forms:
        _tell(f"recording with LeRobot, {form}")
        results += recording.record_lerobot(folder / form, frames, spec, form=form, num_episodes=2, **steps)
    return results


def _sampled(scale: Scale, folder: Path, backend: str) -> list:
    """Samples from what was recorded, and compares."""
    from tools.bench_replay.sampling import sample_lerobot, sample_ours
    from tools.bench_results import ratio

    _tell("sampling")
    results = sample_ours(folder / "dataset", seconds=scale.seconds)
    _record_smaller(scale, folder / "smaller")
    label = f"ours, JPEG {SMALLER_QUALITY}"
    results += sample_ours(folder / "smaller" / "dataset", seconds=scale.seconds, label=label, at_least=None)
    results += sample_lerobot(folder / "image", form="image", backend=None, seconds=scale.seconds)
    for each in dict.fromkeys((backend, "pyav")):
        _tell(f"sampling video with {each}")
        results += sample_lerobot(folder / "video", form="video", backend=each, seconds=scale.seconds)
    return [*results, *_sampling_ratios(results, backend, ratio)]


def _record_smaller(scale: Scale, folder: Path) -> None:
    """Records the same pictures at a lower JPEG quality, which costs less to decode."""
    from tools.bench_replay import recording
    from tools.bench_workload import bench_robot, make_frames

    spec = bench_robot(quality=SMALLER_QUALITY)
    frames = make_frames(scale.num_steps, spec)
    recording.record_ours(folder, frames, spec, num_episodes=scale.num_episodes, num_steps=scale.num_steps)


def _tell(what: str) -> None:
    sys.stderr.write(f"{what} ...\n")


def _sampling_ratios(results: list, backend: str, ratio: Callable) -> list:
    by_name = {each.name: each for each in results}
    found = []
    for name in ("chunk", "obs+next"):
        ours = by_name[f"sample/ours/{name}"]
        for form, at_least in (("image", 100.0), (f"video ({backend})", 5.0)):
            theirs = by_name[f"sample/lerobot {form}/{name}"]
            found.append(ratio(f"sample/ours to lerobot {form}/{name}", ours, theirs, at_least=at_least))
    return found


def _about(backend: str, **settings: object) -> dict[str, object]:
    import lerobot

    return {
        "machine": platform.processor() or platform.machine(),
        "num_cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "lerobot": lerobot.__version__,
        "lerobot_video_decoder": backend,
        **settings,
    }


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_replay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a run in miniature, to see that it works")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to measure")
    parser.add_argument(
        "--directory", default=None, help="where datasets are written, then removed; a temporary folder"
    )
    parser.add_argument("--spools", default="/dev/shm", help="where the actors' spools lie (in memory: other machines)")
    parser.add_argument("--output", default="outputs/bench/replay.json", help="the figures as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
