"""Resident memory of an actor over hours of robot time: `python -m tools.bench_memory --hours 2` (`make bench-memory`).

A real actor records demonstrations of `sim_pnp` as fast as it can, a real learner takes them. Its memory is sampled
from /proc against the steps that it has recorded; a line through the second half says how much an hour of robot time
adds. Further overrides go to the actor, e.g. `environment.save_video=true`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from serl_launcher.config.loader import load, run_main
from tools.learner_and_actors import LearnerAndActors, memory_of

TASK = ("task=sim_pnp", "algo=data_collection")
COLLECT = ("actor.mode=collect", "environment.realtime_factor=0")
SAMPLES_PER_HOUR = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Resident memory of the actor at one moment, MiB."""

    robot_hours: float
    total: float
    own: float
    files: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """A straight line through the memory of the second half of a run."""

    mib: float
    """Mean of the second half."""
    mib_per_hour: float
    """Slope, per hour of robot time."""

    @property
    def percent_per_hour(self) -> float:
        """Slope as a share of the mean."""
        return 100 * self.mib_per_hour / self.mib


def growth_of(hours: Sequence[float], mib: Sequence[float]) -> Growth:
    """Returns the least-squares line through the samples of the second half."""
    x, y = np.asarray(hours), np.asarray(mib)
    late = x >= x[-1] / 2
    slope, _ = np.polyfit(x[late], y[late], 1)
    return Growth(mib=float(y[late].mean()), mib_per_hour=float(slope))


def sample_actor(root: Path, *, hours: float, overrides: Sequence[str], tell: bool = True) -> list[Sample]:
    """Runs learner and actor in `root` until `hours` of robot time are recorded; returns the samples."""
    control_hz = load([*TASK, *COLLECT, *overrides]).environment.hz
    samples: list[Sample] = []
    with LearnerAndActors(root, shared=TASK, learner=[], actors=[[*COLLECT, *overrides]]) as both:
        both.wait_until_playing()
        while not samples or samples[-1].robot_hours < hours:
            both.require_running()
            seen_hours = both.number("actor-0", "num_steps") / control_hz / 3600
            if not samples or seen_hours - samples[-1].robot_hours >= 1 / SAMPLES_PER_HOUR:
                memory = memory_of(both.actors[0].pid)
                samples.append(Sample(robot_hours=seen_hours, **asdict(memory)))
                if tell and len(samples) % 20 == 1:
                    sys.stdout.write(f"{seen_hours:.2f} h: {memory.total:.1f} MiB ({memory.own:.1f} own)\n")
                    sys.stdout.flush()
            time.sleep(0.5)
    return samples


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Writes a PNG: resident memory over robot time."""
    # A canvas of its own instead of pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    hours = [sample.robot_hours for sample in samples]
    early = samples[len(samples) // 10].own
    axes.plot(hours, [sample.total for sample in samples], label="resident", color="#4a5568")
    axes.plot(hours, [sample.own for sample in samples], label="of it allocated (anonymous)", color="#2b6cb0")
    axes.plot(hours, [sample.files for sample in samples], label="of it mapped files", color="#dd6b20")
    axes.set(
        xlabel="hours of robot time", ylabel="MiB", ylim=(0, None), xlim=(0, None),
        title=f"Memory of an actor: {early:.1f} MiB allocated after a tenth, {samples[-1].own:.1f} at the end",
    )  # fmt: skip
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> int:
    """Prints the growth; returns 1 where it is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_memory", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="robot time")
    parser.add_argument("--limit", type=float, default=2.0, help="percent per hour that allocated memory may grow")
    parser.add_argument("--plot", type=Path, default=Path("outputs/bench_memory/memory.png"))
    parser.add_argument("--json", type=Path, help="also write the samples to this file")
    parser.add_argument("overrides", nargs="*", help="for the actor")
    chosen = parser.parse_args(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as directory:
        began_s = time.monotonic()
        samples = sample_actor(Path(directory), hours=chosen.hours, overrides=chosen.overrides)
        minutes = (time.monotonic() - began_s) / 60
    hours = [sample.robot_hours for sample in samples]
    growth = growth_of(hours, [sample.own for sample in samples])
    total = growth_of(hours, [sample.total for sample in samples])
    draw(samples, chosen.plot)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps([asdict(sample) for sample in samples]) + "\n")
    sys.stdout.write(
        f"{hours[-1]:.2f} h of robot time in {minutes:.1f} min. Second half: allocated {growth.mib:.1f} MiB, "
        f"from {samples[len(samples) // 10].own:.1f} after a tenth of the run to {samples[-1].own:.1f} at its end, "
        f"{growth.mib_per_hour:+.2f} MiB/h ({growth.percent_per_hour:+.2f} %/h); resident {total.mib:.1f} MiB, "
        f"{total.mib_per_hour:+.2f} MiB/h. Plot: {chosen.plot}.\n"
    )
    return int(growth.percent_per_hour > chosen.limit)


if __name__ == "__main__":
    run_main(main)
