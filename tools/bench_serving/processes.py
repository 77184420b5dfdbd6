"""Starts the processes of the benchmark and collects what they say."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tools.bench_serving.orders import ClientOrder, ClientResult, ServerOrder
from tools.bench_transport.actor import Order

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EPISODE_STEPS = 50
_STREAM_START_S = 8.0
"""Time for recording actors to import and connect."""
_START_S = 0.5
"""Between the last actor being ready and the measurement."""


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tools.bench_serving.{module}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT)


@contextmanager
def serving(order: ServerOrder) -> Iterator[tuple[tuple[int, int], subprocess.Popen[str]]]:
    """Starts a server; yields its ports and its process, and ends it."""
    process = _start("server")
    try:
        assert process.stdout is not None
        _tell(process, msgspec.json.encode(order).decode())
        said = process.stdout.readline()
        if not said:
            raise RuntimeError(f"The server of {order.kind} did not start; see above.")
        request_port, broadcast_port = msgspec.json.decode(said)
        yield (request_port, broadcast_port), process
    finally:
        _end(process)


@contextmanager
def training(policies: str) -> Iterator[None]:
    """Trains, publishes and checkpoints beside whatever runs."""
    process = _start("training", policies)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        _end(process)


@contextmanager
def streaming(ports: tuple[int, int], root: Path, *, num_actors: int, hz: float) -> Iterator[None]:
    """Has actors record steps of three pictures to a server, in episodes of EPISODE_STEPS, beside whatever runs."""
    start_at_s = time.monotonic() + _STREAM_START_S
    processes = []
    try:
        for number in range(num_actors):
            order = Order(
                actor_id=f"recorder-{number}", spool=str(root / f"recorder-{number}"), ports=ports, keys_dir=None,
                encoding="jpeg", size=224, seconds=3600.0, window=1000, rate_hz=hz, episode_steps=EPISODE_STEPS,
                start_at_s=start_at_s + number / (num_actors * hz),
            )  # fmt: skip
            command = [sys.executable, "-m", "tools.bench_transport.actor"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(order))
            process.stdin.close()
        time.sleep(max(0.0, start_at_s + 1.0 - time.monotonic()))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_clients(orders: Sequence[ClientOrder]) -> list[ClientResult]:
    """Runs actors side by side, all measured over the same time."""
    return finish_clients(start_clients(orders))


def start_clients(orders: Sequence[ClientOrder]) -> list[subprocess.Popen[str]]:
    """Starts actors that begin to measure together, when all of them are connected and answered."""
    processes = [_start("client") for _ in orders]
    for process, order in zip(processes, orders, strict=True):
        _tell(process, msgspec.json.encode(order).decode())
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("An actor of the benchmark did not start; see above.")
    start_at_s = time.monotonic() + _START_S
    for process in processes:
        _tell(process, str(start_at_s))
    return processes


def finish_clients(processes: Sequence[subprocess.Popen[str]]) -> list[ClientResult]:
    """Waits for actors and returns what each saw."""
    results = []
    for process in processes:
        said, _ = process.communicate(timeout=900)
        if process.returncode or not said.strip():
            raise RuntimeError(f"An actor of the benchmark ended with {process.returncode}; see above.")
        results.append(msgspec.json.decode(said, type=ClientResult))
    return results


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
