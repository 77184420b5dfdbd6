"""Many simulated actors in real time into one learner: `python -m tools.bench_actors` (`make bench-actors`).

Each actor is `python -m actor task=sim_pnp` at its own rate with three cameras; the scripted person drives. Afterwards
every step that an actor says it played (its own tick log) is looked up in the sealed dataset, and every picture is
decoded. Prints what is missing, how many ticks came late, how far ticks are from their time, and the CPU time.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from actor.timings import HELD
from serl_launcher.config.loader import load, run_main
from serl_launcher.datasets import features
from serl_launcher.datasets.layout import read_info, read_table
from serl_launcher.errors import DatasetError
from tools.learner_and_actors import POLL_S, LearnerAndActors, cpu_seconds_of
from tools.replay.verify import problems

TASK = ("task=sim_pnp", "algo=data_collection")
REAL_TIME = ("actor.mode=collect", "environment.realtime_factor=1")
SEAL_S = 60.0

Episode = tuple[str, int]
"""Id of an actor and number of an episode of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a run of several actors showed."""

    num_actors: int
    seconds: float
    num_steps: int
    """Recorded by the actors."""
    num_lost: int
    """Of them not in the dataset."""
    num_extra: int
    """In the dataset more often than recorded."""
    num_problems: int
    """What `tools.replay verify` finds wrong with the dataset."""
    num_late: int
    """Ticks whose work took longer than the tick."""
    tick_off_p99_ms: float
    """How far the time between two ticks is from its due, 99 % of them at most."""
    cpu_ms_per_step: float
    """Actors and learner together."""
    cores_of_actors: float
    """CPU seconds per second, all actors together."""
    cores_of_learner: float

    @property
    def is_whole(self) -> bool:
        """Whether every step arrived exactly once and can be read."""
        return not (self.num_lost or self.num_extra or self.num_problems)


def played_steps(timings: Path, actor_id: str) -> dict[Episode, int]:
    """Returns the number of recorded ticks of each episode, from an actor's own log; ticks that were held are none."""
    rows = [json.loads(line) for line in timings.read_text().splitlines()]
    return {(actor_id, row["episode"]): sum(index != HELD for index in row["chunk_index"]) for row in rows}


def off_times_ms(timings: Path, period_s: float) -> list[float]:
    """Returns how far each tick of an actor's log was from its time."""
    rows = [json.loads(line) for line in timings.read_text().splitlines()]
    return [abs(tick - 1e3 * period_s) for row in rows for tick in row["tick_ms"]]


def stored_steps(root: Path) -> Counter[Episode]:
    """Returns the number of steps of each episode in a dataset."""
    found: Counter[Episode] = Counter()
    for path in root.glob("meta/episodes/*/*.parquet"):
        for row in read_table(path, [features.EPISODE_ID, "actor_id", "length"]).to_pylist():
            number = int(row[features.EPISODE_ID].rpartition("-")[2])
            found[(row["actor_id"], number)] += row["length"]
    return found


def difference(played: Mapping[Episode, int], stored: Mapping[Episode, int]) -> tuple[int, int]:
    """Returns how many steps are missing and how many are too many in what is stored."""
    episodes = set(played) | set(stored)
    change = {each: stored.get(each, 0) - played.get(each, 0) for each in episodes}
    return -sum(min(each, 0) for each in change.values()), sum(max(each, 0) for each in change.values())


def measure(root: Path, *, num_actors: int, seconds: float, overrides: Sequence[str] = ()) -> Found:
    """Runs the actors for so long after all have begun; ends them, lets the learner seal, and compares."""
    period_s = 1 / load([*TASK, *REAL_TIME, *overrides]).environment.hz
    each = [[*REAL_TIME, *overrides, f"actor.seed_offset={1000 * number}"] for number in range(num_actors)]
    with LearnerAndActors(root, shared=TASK, learner=[], actors=each) as running:
        running.wait_until_playing()
        before = [cpu_seconds_of(process.pid) for process in (running.learner, *running.actors)]
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            running.require_running()
            time.sleep(POLL_S)
        measured_s = time.monotonic() - began_s
        after = [cpu_seconds_of(process.pid) for process in (running.learner, *running.actors)]
        running.end_actors()
        played: dict[Episode, int] = {}
        off_ms: list[float] = []
        for name in running.actor_ids:
            timings = running.root / "metrics" / f"actor-{name}-timings.jsonl"
            played |= played_steps(timings, name)
            off_ms += off_times_ms(timings, period_s)
        dataset = running.root / "replay_buffer"
        wait_for_steps(dataset, sum(played.values()))
        num_late = sum(running.number(name, "num_late_ticks") for name in running.actor_ids)
    num_lost, num_extra = difference(played, stored_steps(dataset))
    used = np.subtract(after, before) / measured_s
    return Found(
        num_actors=num_actors, seconds=measured_s, num_steps=sum(played.values()), num_lost=num_lost,
        num_extra=num_extra, num_problems=len(list(problems(dataset))),
        num_late=int(num_late), tick_off_p99_ms=float(np.percentile(off_ms, 99)) if off_ms else float("nan"),
        cpu_ms_per_step=1e3 * float(used.sum()) * period_s / num_actors, cores_of_actors=float(used[1:].sum()),
        cores_of_learner=float(used[0]),
    )  # fmt: skip


def wait_for_steps(dataset: Path, num_steps: int) -> None:
    """Waits until so many steps are sealed; what is missing after a while is what the comparison is there to find."""
    deadline_s = time.monotonic() + SEAL_S
    while time.monotonic() < deadline_s:
        try:
            if int(read_info(dataset)["total_frames"]) >= num_steps:
                return
        except DatasetError:  # Nothing is sealed yet.
            pass
        time.sleep(POLL_S)


def describe(found: Found) -> str:
    """Returns the figures in two lines."""
    return (
        f"{found.num_actors} actors for {found.seconds:.0f} s: {found.num_steps} steps recorded, {found.num_lost} "
        f"lost, {found.num_extra} too many, {found.num_problems} problems in the dataset; {found.num_late} late ticks, "
        f"ticks off their time by {found.tick_off_p99_ms:.1f} ms at most in 99 %.\n"
        f"CPU: {found.cores_of_actors:.2f} cores for the actors, {found.cores_of_learner:.2f} for the learner, "
        f"{found.cpu_ms_per_step:.1f} ms per step.\n"
    )


def main() -> int:
    """Prints the figures; returns 1 where a step is missing, doubled or damaged."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_actors", description=__doc__)
    parser.add_argument("--actors", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("overrides", nargs="*", help="for the actors, e.g. environment.image_size=[224,224]")
    chosen = parser.parse_args(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="bench-actors-") as directory:
        found = measure(Path(directory), num_actors=chosen.actors, seconds=chosen.seconds, overrides=chosen.overrides)
    sys.stdout.write(describe(found))
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    return int(not found.is_whole)


if __name__ == "__main__":
    run_main(main)
