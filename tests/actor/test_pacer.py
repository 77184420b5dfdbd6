import time

from actor.pacer import Pacer


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
