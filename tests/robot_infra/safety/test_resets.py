import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra.safety import limits_of, reset_trajectory
from serl_launcher.errors import SafetyError
from tests.robot_infra.safety.test_motion import LIMITS, SPEC, assert_kept

inside = arrays(np.float32, 2, elements=st.floats(0, 1, width=32))


@settings(max_examples=60, deadline=None)
@given(start=inside, goal=inside)
def test_a_reset_keeps_every_limit_and_ends_at_its_goal(start: np.ndarray, goal: np.ndarray):
    commands = reset_trajectory(start, goal, LIMITS)
    np.testing.assert_allclose(commands[-1], goal, atol=1e-6)
    ended = np.concatenate([start[None], commands, np.repeat(goal[None], 3, axis=0)])
    assert_kept(ended.astype(np.float64), LIMITS)


def test_the_slowest_joint_sets_the_time():
    """One rad: 15/8 / 2 rad/s = 0.94 s by speed, sqrt(5.77 / 8) = 0.85 s, cbrt(60 / 60) = 1 s by jerk."""
    assert len(reset_trajectory(np.array([-0.5, 0.5]), np.array([0.5, 0.5]), LIMITS)) == 10


def test_a_reset_takes_its_least_time_also_where_nothing_moves():
    assert reset_trajectory(np.zeros(2), np.zeros(2), LIMITS, min_ticks=7).shape == (7, 2)


def test_without_limits_a_reset_is_as_short_as_allowed():
    free = limits_of(msgspec.structs.replace(SPEC, max_speed=(), max_acceleration=(), max_jerk=()), [])
    assert len(reset_trajectory(np.zeros(2), np.ones(2), free)) == 1


def test_a_goal_outside_of_the_bounds_is_clipped():
    np.testing.assert_allclose(reset_trajectory(np.zeros(2), np.array([9.0, -9.0]), LIMITS)[-1], [1.0, 0.0])


def test_a_goal_that_is_no_number_is_refused():
    with pytest.raises(SafetyError):
        reset_trajectory(np.zeros(2), np.array([np.nan, 0]), LIMITS)
