"""One actor of the benchmark, in a process of its own: records steps as fast as they are acknowledged, or at a rate.

Reads one JSON object from standard input, answers with one on standard output.
"""

import contextlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from actor.spool import Spool
from serl_launcher.allocator import keep_freed_memory
from serl_launcher.config.transport import TransportConfig
from serl_launcher.events import EpisodeEnded, EpisodeStarted, encode_observation
from serl_launcher.transport.client import LearnerClient
from serl_launcher.types import Outcome
from tools.bench_workload import PROMPT, bench_robot, cpu_seconds, encode_step, make_frames, observe, percentile_ms

SPOOL_BYTES = 2**30
_NUM_PICTURES = 24


class Order(msgspec.Struct, kw_only=True):
    """What an actor is told to do."""

    actor_id: str
    spool: str
    ports: tuple[int, int]
    keys_dir: str | None
    encoding: str
    """`jpeg` or `raw`."""
    size: int
    seconds: float
    window: int
    """Steps that may wait for an acknowledgement."""
    rate_hz: float = 0.0
    """Steps per second; 0 is as fast as the window allows."""
    episode_steps: int = 200
    start_at_s: float = 0.0
    """Monotonic time at which all actors begin to be measured."""


class TimedSpool:
    """A spool that notes how long each event waits for its acknowledgement."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.waiting: deque[tuple[int, float]] = deque()
        self.latencies_s: list[float] = []
        self.acknowledged_at_s: list[float] = []
        self._acknowledged = threading.Condition()

    def __getattr__(self, name: str) -> object:
        return getattr(self.spool, name)

    def acknowledge(self, seq: int) -> None:
        """Deletes the events up to `seq` and notes when that was."""
        now = time.monotonic()
        while self.waiting and self.waiting[0][0] <= seq:
            self.latencies_s.append(now - self.waiting.popleft()[1])
            self.acknowledged_at_s.append(now)
        with self._acknowledged:
            self._acknowledged.notify_all()
        self.spool.acknowledge(seq)

    def wait_for_room(self, window: int, timeout_s: float) -> None:
        """Waits until fewer than `window` events wait for an acknowledgement."""
        with self._acknowledged:
            if not self._acknowledged.wait_for(lambda: len(self.waiting) < window, timeout_s):
                raise TimeoutError(f"The learner of the benchmark did not answer within {timeout_s:g} s.")


def run(order: Order) -> dict[str, object]:
    """Records for the time ordered; returns steps per second, latencies and CPU time."""
    keep_freed_memory()
    spec = bench_robot(size=order.size, encoding="raw" if order.encoding == "raw" else "jpeg")
    frames = make_frames(_NUM_PICTURES, spec)
    encoded = [encode_observation(observe(frames, step, spec), spec) for step in range(_NUM_PICTURES)]
    config = TransportConfig(
        request_port=order.ports[0], broadcast_port=order.ports[1], keys_dir=order.keys_dir, request_timeout_s=30.0,
        dead_after_s=30.0,
    )  # fmt: skip
    with contextlib.closing(Spool(Path(order.spool), max_bytes=SPOOL_BYTES)) as spool:
        timed = TimedSpool(spool)
        client = LearnerClient(config, "127.0.0.1", actor_id=order.actor_id, spec=spec, spool=timed)  # pyright: ignore[reportArgumentType] - It passes on what it does not have.
        client.start()
        with contextlib.closing(client):
            return _record(order, timed, client, encoded)


def _record(order: Order, timed: TimedSpool, client: LearnerClient, encoded: list) -> dict[str, object]:
    _wait(lambda: client.is_connected, 60.0)
    time.sleep(max(0.0, order.start_at_s - time.monotonic()))
    began, cpu = time.monotonic(), cpu_seconds()
    number = step = 0
    count, due = 0, began
    spool = timed.spool
    while time.monotonic() < began + order.seconds:
        episode_id = f"{order.actor_id}-{spool.epoch}-{number}"
        if step == 0:
            spool.append(EpisodeStarted(episode_id, PROMPT, 0.0))
        event = encode_step(encoded[count % len(encoded)], episode_id, step)
        asked = time.monotonic()
        timed.waiting.append((spool.last_seq + 1, asked))  # Before it can be acknowledged.
        spool.append(event)
        count, step = count + 1, step + 1
        if step == order.episode_steps:
            spool.append(EpisodeEnded(episode_id, step, encoded[0], Outcome.SUCCESS, "script", 0.0))
            number, step = number + 1, 0
        if order.rate_hz:
            due += 1 / order.rate_hz
            time.sleep(max(0.0, due - time.monotonic()))
        else:
            timed.wait_for_room(order.window, 60.0)
    ended = time.monotonic()
    cpu = cpu_seconds() - cpu
    client.flush(60.0)
    done = sum(at <= ended for at in timed.acknowledged_at_s)
    return {
        "steps": done,
        "seconds": ended - began,
        "cpu_s": cpu,
        "latencies_ms": [percentile_ms(timed.latencies_s, percent) for percent in (50, 99, 100)],
        "all_latencies_ms": [round(1e3 * each, 2) for each in timed.latencies_s] if order.rate_hz else [],
        "recorded": count,
    }


def _wait(is_true: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"The learner of the benchmark did not answer within {timeout_s:g} s.")
        time.sleep(0.01)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(msgspec.json.decode(sys.stdin.read(), type=Order))))
