"""The plan with answers that come late, out of order or never, as over a network."""

import random
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from actor.latency import LatencyEstimate
from actor.pacer import Pacer
from actor.policy_client import RemotePolicy
from actor.realtime_plan import RealTimePlan
from serl_launcher.errors import DeadlineExceeded
from serl_launcher.types import ActionChunk, Observation


def see(tick: int) -> Observation:
    """The state tells the tick."""
    return Observation(images={}, state=np.array([tick, 0], np.float32), prompt="go")


class UnreliableService:
    """Answers after 1 to 4 ticks; some answers take much longer, some are lost: then only the deadline is heard."""

    def __init__(self, *, seed: int, outliers: float = 0.0, lost: float = 0.0, first: int = 1):
        self._random = random.Random(seed)
        self._outliers, self._lost, self._first = outliers, lost, first
        self._under_way: list[tuple[int, Future, list[ActionChunk] | None]] = []
        self.now = 0
        self.delays_told: list[int] = []
        self.num_asked = 0

    def act_async(self, observations, *, timeout_s: float, unfinished=()) -> Future:
        future: Future = Future()
        self.num_asked += 1
        if self.num_asked == 1:
            future.set_result([self._chunk(0, took=self._first)])
            return future
        self.delays_told += [each.delay_ticks for each in unfinished]
        most = round(timeout_s / 0.05)
        is_outlier = self._random.random() < self._outliers
        took = self._random.randint(5, 120) if is_outlier else self._random.randint(1, 4)
        is_lost = took > most or self._random.random() < self._lost
        result = None if is_lost else [self._chunk(int(observations[0].state[0]), took=took)]
        self._under_way.append((self.now + (most if is_lost else took), future, result))
        return future

    def advance(self, tick: int) -> None:
        self.now = tick
        for due, future, result in self._under_way:
            if due > tick or not future.set_running_or_notify_cancel():
                continue
            if result is None:
                future.set_exception(DeadlineExceeded("lost"))
            else:
                future.set_result(result)
        self._under_way = [each for each in self._under_way if each[0] > tick]

    def _chunk(self, tick: int, *, took: int) -> ActionChunk:
        ticks = np.arange(tick, tick + 16, dtype=np.float32)
        timings_ms = {"round_trip": 50.0 * took}
        return ActionChunk(actions=np.stack([ticks, ticks], axis=1), policy_version=0, timings_ms=timings_ms)


def held_ticks(service: UnreliableService, chunking: str, *, num_ticks: int) -> int:
    policy = RemotePolicy(service, timeout_s=5.0, is_stopping=lambda: False)
    plan = RealTimePlan(policy=policy, execution_horizon=4, latency=LatencyEstimate(tick_s=0.05), chunking=chunking)
    plan.begin(see(0))
    for tick in range(num_ticks):
        service.advance(tick)
        plan.look()
        plan.take(see(tick))
    return plan.num_held


@pytest.mark.parametrize("chunking", ["switch", "rtc"])
def test_a_lost_answer_does_not_hold_the_robot(chunking):
    services = [UnreliableService(seed=seed, lost=0.05) for seed in range(4)]
    num_held = sum(held_ticks(service, chunking, num_ticks=2000) for service in services)
    assert num_held <= 24  # Of 8000.
    assert sum(service.num_asked for service in services) < 2200


@pytest.mark.parametrize("chunking", ["switch", "rtc"])
def test_outliers_of_the_latency_spoil_no_plan(chunking):
    services = [UnreliableService(seed=seed, outliers=0.02, first=200) for seed in range(10)]
    assert sum(held_ticks(service, chunking, num_ticks=800) for service in services) <= 24  # Of 8000.
    told = [delay for service in services for delay in service.delays_told]
    assert max(told, default=0) <= 12
    assert np.median(told or [0]) <= 4


class SlowService:
    """Answers after a random time, from another thread, as a network does; sometimes not at all."""

    def __init__(self, low_s: float, high_s: float, *, horizon: int, lost: int = 0):
        self._random = random.Random(0)
        self._low_s, self._high_s, self._horizon, self._lost = low_s, high_s, horizon, lost
        self.num_asked = 0

    def act_async(self, observations, *, timeout_s: float, unfinished=()) -> Future:
        future: Future = Future()
        self.num_asked += 1
        delay_s = self._random.uniform(self._low_s, self._high_s)
        is_lost = bool(self._lost) and self.num_asked % self._lost == 0

        def answer() -> None:
            if not future.set_running_or_notify_cancel():
                return
            if is_lost:
                future.set_exception(DeadlineExceeded("lost"))
                return
            ticks = observations[0].state[0] + np.arange(self._horizon, dtype=np.float32)
            future.set_result(
                [
                    ActionChunk(
                        actions=np.stack([ticks, ticks], 1), policy_version=0, timings_ms={"round_trip": 1e3 * delay_s}
                    )
                ]
            )

        threading.Timer(delay_s, answer).start()
        return future


@pytest.mark.parametrize("lost", [0, 5])
def test_a_robot_at_20_hz_never_starves_with_50_to_400_ms_of_latency_and_jitter(lost: int):
    service = SlowService(0.05, 0.4, horizon=32, lost=lost)
    policy = RemotePolicy(service, timeout_s=2.0, is_stopping=lambda: False)
    plan = RealTimePlan(policy=policy, execution_horizon=6, latency=LatencyEstimate(0.05))
    plan.begin(see(0))
    pacer = Pacer(0.05)
    pacer.start()
    executed, decide_ms = [], []
    for tick in range(100):
        began_s = time.perf_counter()
        plan.look()
        planned = plan.take(see(tick))
        decide_ms.append(1e3 * (time.perf_counter() - began_s))
        executed.append(None if planned is None else float(planned.action[0]))
        pacer.finish_tick()
    policy.forget()
    assert executed == list(range(100))
    assert np.median(decide_ms) < 5.0
    assert service.num_asked >= 10
    assert plan.latency.figures()["latency_ms_p99"] > 200
