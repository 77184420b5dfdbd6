import time
from dataclasses import dataclass, field

import pytest

from actor.pacer import Pacer, num_late_ticks
from actor.rewards import JudgedEnv, RewardBus
from robot_infra.clock import TickClock
from tests.actor.tiny_robot import TinyRobot


def test_ticks_keep_their_rate_whatever_the_work_in_between():
    pacer = Pacer(0.02)
    started_s = time.monotonic()
    pacer.start()
    for _ in range(10):
        time.sleep(0.005)
        pacer.finish_tick()
    assert 0.19 < time.monotonic() - started_s < 0.6


def test_a_late_tick_is_counted_and_not_caught_up():
    pacer = Pacer(0.02)
    pacer.start()
    time.sleep(0.1)
    pacer.finish_tick()
    started_s = time.monotonic()
    pacer.finish_tick()
    assert pacer.num_late == 1
    assert time.monotonic() - started_s > 0.015


def test_without_a_period_nothing_waits():
    pacer = Pacer(0.0)
    started_s = time.monotonic()
    pacer.start()
    for _ in range(1000):
        pacer.finish_tick()
    assert time.monotonic() - started_s < 0.1


@dataclass
class Clocked(TinyRobot):
    """A robot with a clock; `keeps_time` says whether it uses it."""

    keeps_time: bool = True
    clock: TickClock = field(default_factory=lambda: TickClock(0.02, num_late=3))


@pytest.mark.parametrize(("keeps_time", "expected"), [(True, 3), (False, 5)])
def test_late_ticks_are_counted_by_whoever_ends_them(*, keeps_time: bool, expected: int):
    env = JudgedEnv(Clocked(keeps_time=keeps_time), RewardBus(), environment_judges=True)
    assert num_late_ticks(env, Pacer(0.0, num_late=5)) == expected


def test_late_ticks_of_a_simulator_are_the_pacers():
    assert num_late_ticks(TinyRobot(), Pacer(0.02, num_late=5)) == 5
