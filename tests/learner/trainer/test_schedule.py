from itertools import pairwise

import pytest

from learner.trainer.schedule import is_restart_due, learning_rate
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.errors import ConfigError


def config(**changes):
    return OptimizerConfig(**{"lr": 1.0, "decay_lr": 0.1, "num_warmup_steps": 10, "num_decay_steps": 110, **changes})


def test_the_warm_up_is_linear_and_begins_above_zero():
    rates = [learning_rate(n, config()) for n in range(11)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1.0
    assert [b - a for a, b in pairwise(rates)] == pytest.approx([(10 / 11) / 10] * 10)


def test_the_cosine_passes_its_middle_and_stays_at_its_end():
    assert learning_rate(60, config()) == pytest.approx(0.55)
    assert learning_rate(110, config()) == pytest.approx(0.1)
    assert learning_rate(10_000, config()) == pytest.approx(0.1)


def test_a_constant_schedule_stays_at_its_rate():
    assert learning_rate(10_000, config(schedule="constant")) == 1.0


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert learning_rate(0, config(num_warmup_steps=0)) == 1.0


def test_a_cycle_begins_again_at_the_peak():
    cyclic = config(decay_lr=0.0, num_decay_steps=30, schedule="cyclic")
    assert learning_rate(10, cyclic) == learning_rate(30, cyclic) == learning_rate(50, cyclic) == 1.0
    assert learning_rate(20, cyclic) == pytest.approx(0.5)
    assert learning_rate(29, cyclic) < 0.01


def test_a_restart_is_due_after_enough_new_episodes_and_only_where_it_is_asked_for():
    restart = config(schedule="restart", restart_every_episodes=20)
    assert not is_restart_due(29, 10, restart)
    assert is_restart_due(30, 10, restart)
    assert not is_restart_due(10**6, 0, config(schedule="cosine"))


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="cyclic"):
        config(schedule="exponential")
