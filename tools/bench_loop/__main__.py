"""Jitter of the control loop: `python -m tools.bench_loop --hz 20 50` (`make bench-loop`).

An actor's own rollout drives a fake robot with three network cameras, while a spool takes every step on the disk and a
real learner in a process of its own takes them from there. Prints how late ticks end: median, 99 %, worst, and how many
deadlines were missed. `--compare` also measures without what `actor.steadiness` does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from serl_launcher.config.loader import run_main
from serl_launcher.config.transport import TransportConfig
from tools.bench_loop.loop import Jitter, measure
from tools.learner_and_actors import LearnerAndActors


@contextmanager
def filming() -> Iterator[int]:
    """Runs the cameras; yields their port."""
    command = [sys.executable, "-m", "tools.bench_loop.cameras"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


def measure_rate(hz: float, *, seconds: float, is_steady: bool = True) -> Jitter:
    """Returns the jitter at one rate, with a learner and cameras of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as name, filming() as camera_port:
        directory = Path(name)
        learner = LearnerAndActors(directory, shared=("algo=data_collection",), learner=[], actors=[])
        with learner:
            return measure(
                hz, seconds=seconds, camera_port=camera_port, directory=directory / "actor", is_steady=is_steady,
                learner=TransportConfig(request_port=learner.ports[0], broadcast_port=learner.ports[1]),
            )  # fmt: skip


def describe(jitter: Jitter) -> str:
    """Returns the figures in a line."""
    return (
        f"{jitter.hz:g} Hz, {jitter.num_ticks} ticks, 3 cameras; late: {jitter.median_ms:.2f} ms (median), "
        f"{jitter.p99_ms:.2f} ms (99 %), {jitter.worst_ms:.2f} ms (worst); {jitter.num_late} missed; work of a tick "
        f"{jitter.work_p99_ms:.1f} ms (99 %); {jitter.num_delivered} events delivered."
    )


def main() -> int:
    """Prints one line per rate; returns 1 where the 99 % quantile is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_loop", description=__doc__)
    parser.add_argument("--hz", type=float, nargs="+", default=[20.0, 50.0])
    parser.add_argument("--seconds", type=float, default=60.0, help="per rate")
    parser.add_argument("--limit_ms", type=float, default=5.0, help="the 99 %% quantile may be this at most")
    parser.add_argument("--compare", action="store_true", help="also without actor.steadiness")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    chosen = parser.parse_args(sys.argv[1:])
    found = []
    for hz in chosen.hz:
        if chosen.compare:
            plain = measure_rate(hz, seconds=chosen.seconds, is_steady=False)
            sys.stdout.write(f"as Python is: {describe(plain)}\n")
        found.append(measure_rate(hz, seconds=chosen.seconds))
        sys.stdout.write(f"{describe(found[-1])}\n")
        sys.stdout.flush()
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    return int(any(each.p99_ms > chosen.limit_ms for each in found))


if __name__ == "__main__":
    run_main(main)
