import time

import pytest

from robot_infra.clock import TickClock

PERIOD_S = 0.05


@pytest.fixture
def clock() -> TickClock:
    ticking = TickClock(PERIOD_S)
    ticking.start()
    return ticking


def test_ticks_end_on_one_schedule_however_long_their_work_took(clock: TickClock):
    began_s = time.monotonic()
    clock.start()
    for work_s in (0.03, 0.0, 0.02, 0.01):
        time.sleep(work_s)
        clock.wait()
        assert time.monotonic() - began_s >= clock.num_ticks * PERIOD_S - 1e-3
    assert clock.num_ticks == 4
    assert len(clock.lateness_s) == len(clock.work_s) == 4
    assert min(clock.lateness_s) >= 0


def test_a_command_that_came_late_gets_a_whole_tick(clock: TickClock):
    time.sleep(1.5 * PERIOD_S)
    commanded_s = time.monotonic()
    clock.wait()
    assert time.monotonic() - commanded_s >= PERIOD_S - 1e-3
    assert clock.num_late == 1
    assert clock.lateness_s[0] >= 0.5 * PERIOD_S - 1e-3
    assert clock.work_s[0] >= 1.5 * PERIOD_S - 1e-3


def test_the_end_of_a_tick_is_not_slept_through(clock: TickClock, monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr("robot_infra.clock.time.sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    clock.wait()
    assert slept == [pytest.approx(PERIOD_S - 0.002, abs=0.02)]
    assert slept[0] <= PERIOD_S - 0.002
