import random

import pytest

from learner.trainer.limiter import may_update, update_to_data
from serl_launcher.config.training import AlgoConfig


def test_without_a_limit_every_update_is_allowed():
    assert may_update(10**6, 0, AlgoConfig())


def test_updates_stop_at_the_ratio_and_go_on_with_new_steps():
    algo = AlgoConfig(update_to_data=0.5)
    assert may_update(49, 100, algo)
    assert not may_update(50, 100, algo)
    assert may_update(50, 102, algo)


def test_the_first_updates_are_free():
    algo = AlgoConfig(update_to_data=1.0, min_online_updates=20)
    assert may_update(19, 0, algo)
    assert not may_update(20, 0, algo)


def test_the_ratio_without_online_steps_is_zero():
    assert update_to_data(100, 0) == 0.0
    assert update_to_data(100, 50) == 2.0


@pytest.mark.parametrize("target", [0.1, 0.5, 3.0])
def test_the_realised_ratio_is_within_two_percent_of_the_target(target):
    """Steps arrive in episodes of random length; the trainer makes every update that it may."""
    algo, rng, num_updates, num_steps = AlgoConfig(update_to_data=target), random.Random(0), 0, 0
    while num_updates < 2000:
        num_steps += rng.randint(5, 80)
        while may_update(num_updates, num_steps, algo):
            num_updates += 1
    assert update_to_data(num_updates, num_steps) == pytest.approx(target, rel=0.02)
