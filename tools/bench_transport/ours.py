"""Drives a learner and actors in processes of their own and sums up what they say."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tools.bench_transport.actor import Order

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
_START_S = 4.0
"""Actors are given this long to connect before they are measured."""


@dataclass(kw_only=True, slots=True)
class Throughput:
    """What one pattern carried."""

    name: str
    num_actors: int
    steps_per_s: float
    p50_ms: float
    p99_ms: float
    """Of the slowest actor."""
    cpu_ms_per_step: float
    """Actors and learner together; NaN where it is not known."""


def window_of(num_actors: int) -> int:
    """Returns how many steps of one actor may wait for an acknowledgement."""
    return max(2, 16 // num_actors)


@contextmanager
def learner_process(
    root: Path, *, keys_dir: Path | None, durability: str = "group", closed: str = "drop"
) -> Iterator[tuple[subprocess.Popen[str], tuple[int, int]]]:
    """Starts the learner's network side; yields it and its ports."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tools.bench_transport.learner", str(root)]
    command += [str(keys_dir) if keys_dir else "-", durability, closed]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT)
    try:
        assert process.stdout is not None
        request_port, broadcast_port = json.loads(process.stdout.readline())
        yield process, (request_port, broadcast_port)
    finally:
        process.kill()
        process.wait()


def run_actors(orders: list[Order]) -> list[dict]:
    """Runs actors side by side, all measured over the same time; returns what each said."""
    command = [sys.executable, "-m", "tools.bench_transport.actor"]
    start_at_s = time.monotonic() + _START_S + 0.5 * len(orders)
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT) for _ in orders
    ]
    for process, order in zip(processes, orders, strict=True):
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(msgspec.structs.replace(order, start_at_s=start_at_s)))
        process.stdin.close()
        process.stdin = None
    found = []
    for process in processes:
        answer, _ = process.communicate(timeout=600)
        if process.returncode:
            raise RuntimeError(f"An actor of the benchmark ended with {process.returncode}; see above.")
        found.append(json.loads(answer))
    return found


def measure_ours(
    root: Path, spools: Path, *, name: str, encoding: str, num_actors: int, keys_dir: Path | None, seconds: float
) -> Throughput:
    """Returns what `num_actors` actors get through to one learner, committed and acknowledged."""
    with learner_process(root, keys_dir=keys_dir) as (process, ports):
        orders = [
            Order(
                actor_id=f"actor-{number}", spool=str(spools / f"actor-{number}"), ports=ports,
                keys_dir=str(keys_dir) if keys_dir else None, encoding=encoding, size=224, seconds=seconds,
                window=window_of(num_actors),
            )
            for number in range(num_actors)
        ]  # fmt: skip
        found = run_actors(orders)
        answer, _ = process.communicate(input="", timeout=300)
    steps = sum(each["steps"] for each in found)
    cpu_s = sum(each["cpu_s"] for each in found) + json.loads(answer)["cpu_s"]
    return Throughput(
        name=name,
        num_actors=num_actors,
        steps_per_s=sum(each["steps"] / each["seconds"] for each in found),
        p50_ms=max(each["latencies_ms"][0] for each in found),
        p99_ms=max(each["latencies_ms"][1] for each in found),
        cpu_ms_per_step=1e3 * cpu_s / max(steps, 1),
    )
