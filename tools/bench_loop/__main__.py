"""Jitter of the control loop: `python -m tools.bench_loop --hz 20 50` (`make bench-loop`).

An actor's own rollout drives a fake robot with three network cameras, while a spool takes every step on the disk, a
real learner in a process of its own takes them from there, and somebody watches on the operator console. Prints how
late ticks end: median, 99 %, worst, and how many deadlines were missed; and how late a process wakes up that only
sleeps, which is what the machine itself allows. `--compare` also measures without what `actor.steadiness` does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from serl_launcher.config.loader import run_main
from serl_launcher.config.transport import TransportConfig
from tools.bench_loop.loop import Jitter, measure
from tools.learner_and_actors import LearnerAndActors


@contextmanager
def running(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a module of this package, which ends when its standard input closes; yields the process."""
    command = [sys.executable, "-m", f"tools.bench_loop.{module}", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.communicate(timeout=20)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One run."""

    jitter: Jitter
    floor_p99_ms: float
    """Of a process that only sleeps, at the same time."""
    is_steady: bool
    """Whether `actor.steadiness` was used."""


def measure_rate(hz: float, *, seconds: float, is_steady: bool = True) -> Measured:
    """Returns the jitter at one rate, with a learner, cameras and a sleeper in processes of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as name, running("cameras") as cameras:
        directory = Path(name)
        assert cameras.stdout is not None
        camera_port = int(cameras.stdout.readline())
        learner = LearnerAndActors(directory, shared=("algo=data_collection",), learner=[], actors=[])
        network = TransportConfig(request_port=learner.ports[0], broadcast_port=learner.ports[1])
        with learner, running("floor", f"{hz}") as sleeper:
            jitter = measure(
                hz, seconds=seconds, camera_port=camera_port, learner=network, directory=directory / "actor",
                watch=partial(running, "viewer"), is_steady=is_steady,
            )  # fmt: skip
            floor_ms = json.loads(sleeper.communicate()[0])
    return Measured(jitter=jitter, floor_p99_ms=float(np.percentile(floor_ms, 99)), is_steady=is_steady)


def describe(found: Measured) -> str:
    """Returns the figures in a line."""
    jitter = found.jitter
    return (
        f"{jitter.hz:g} Hz, {jitter.num_ticks} ticks, 3 cameras{'' if found.is_steady else ', as Python is'}: late "
        f"{jitter.median_ms:.2f} ms (median), {jitter.p99_ms:.2f} ms (99 %), {jitter.worst_ms:.2f} ms (worst); a "
        f"sleeping process beside it {found.floor_p99_ms:.2f} ms (99 %); {jitter.num_late} missed; work of a tick "
        f"{jitter.work_p99_ms:.1f} ms (99 %); {jitter.num_delivered} events delivered, "
        f"{jitter.num_pictures} pictures on the console."
    )


def main() -> int:
    """Prints one line per run; returns 1 where the 99 % quantile of an actor is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_loop", description=__doc__)
    parser.add_argument("--hz", type=float, nargs="+", default=[20.0, 50.0])
    parser.add_argument("--seconds", type=float, default=60.0, help="per run")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--limit_ms", type=float, default=5.0, help="the 99 %% quantile may be this at most")
    parser.add_argument("--compare", action="store_true", help="also without actor.steadiness")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    chosen = parser.parse_args(sys.argv[1:])
    found = []
    for _ in range(chosen.repeats):
        for hz in chosen.hz:
            for is_steady in (False, True) if chosen.compare else (True,):
                found.append(measure_rate(hz, seconds=chosen.seconds, is_steady=is_steady))
                sys.stdout.write(f"{describe(found[-1])}\n")
                sys.stdout.flush()
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    return int(any(each.jitter.p99_ms > chosen.limit_ms for each in found if each.is_steady))


if __name__ == "__main__":
    run_main(main)
