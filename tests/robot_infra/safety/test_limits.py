import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra import safety
from serl_launcher.errors import ConfigError, SafetyError
from serl_launcher.specs import RobotSpec

SPEC = RobotSpec(
    name="two joints",
    cameras=(),
    state_names=("j0", "j1"),
    action_names=("j0", "j1"),
    action_low=(-1.0, -2.0),
    action_high=(1.0, 2.0),
    control_hz=10.0,
)
finite = arrays(np.float32, 2, elements=st.floats(-1e6, 1e6, width=32))
anything = arrays(np.float32, 2, elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


def command(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_an_action_inside_all_limits_is_unchanged():
    limits = safety.limits_of(SPEC, [0.5])
    np.testing.assert_array_equal(safety.admit(command(0.2, -0.3), command(0.0, 0.0), limits), command(0.2, -0.3))


def test_an_action_outside_the_bounds_is_clipped():
    limits = safety.limits_of(SPEC, [])
    np.testing.assert_array_equal(safety.admit(command(5, -5), None, limits), command(1, -2))


def test_a_jump_is_shortened_to_the_change_of_one_tick():
    limits = safety.limits_of(SPEC, [0.1, 0.2])
    np.testing.assert_allclose(safety.admit(command(1, -1), command(0, 0), limits), command(0.1, -0.2))


def test_without_a_configured_change_only_the_bounds_count():
    limits = safety.limits_of(SPEC, [])
    np.testing.assert_array_equal(safety.admit(command(1, 2), command(-1, -2), limits), command(1, 2))


def test_one_number_is_the_change_of_every_joint():
    np.testing.assert_allclose(safety.limits_of(SPEC, [0.3]).max_change, [0.3, 0.3])


def test_a_wrong_number_of_changes_is_refused():
    with pytest.raises(ConfigError, match="one per action of 'two joints'"):
        safety.limits_of(SPEC, [0.1, 0.1, 0.1])


@pytest.mark.parametrize("change", [0.0, -1.0, float("nan")])
def test_a_change_that_is_not_positive_is_refused(change: float):
    with pytest.raises(ConfigError, match="must be positive"):
        safety.limits_of(SPEC, [change])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused_and_the_joint_named(bad: float):
    with pytest.raises(SafetyError, match="joint 1"):
        safety.admit(command(0.0, bad), None, safety.limits_of(SPEC, []))


def test_an_action_of_another_width_is_refused():
    with pytest.raises(SafetyError, match=r"shape \(2,\), got \(3,\)"):
        safety.admit(np.zeros(3, np.float32), None, safety.limits_of(SPEC, []))


def test_the_given_action_is_not_written_to():
    action = command(5, 5)
    safety.admit(action, command(0, 0), safety.limits_of(SPEC, [0.1]))
    np.testing.assert_array_equal(action, command(5, 5))


def test_standing_still_is_the_measured_state_where_actions_are_positions():
    np.testing.assert_array_equal(safety.standing_still(SPEC, command(0.3, 0.4)), command(0.3, 0.4))


def test_standing_still_finds_the_positions_by_name_where_the_state_holds_more():
    wider = msgspec.structs.replace(SPEC, state_names=("j0_1_ago", "j1_1_ago", "speed", "j1", "j0"))
    np.testing.assert_array_equal(safety.standing_still(wider, command(7, 8, 9, 0.4, 0.3)), command(0.3, 0.4))
    assert safety.acts_by_position(wider)
    assert not safety.acts_by_position(msgspec.structs.replace(SPEC, state_names=("j0", "j1_1_ago")))


def test_standing_still_is_unknown_where_actions_are_something_else():
    other = RobotSpec(
        name="velocity", cameras=(), state_names=("x",), action_names=("v",), action_low=(-1.0,), action_high=(1.0,),
        control_hz=10.0,
    )  # fmt: skip
    assert safety.standing_still(other, command(0.3)) is None


@given(
    stream=st.lists(finite, min_size=1, max_size=20), start=arrays(np.float32, 2, elements=st.floats(-1, 1, width=32))
)
def test_no_stream_of_actions_leaves_the_limits(stream: list[np.ndarray], start: np.ndarray):
    limits, previous = safety.limits_of(SPEC, [0.25]), start
    for action in stream:
        admitted = safety.admit(action, previous, limits)
        assert (limits.low <= admitted).all()
        assert (admitted <= limits.high).all()
        assert (np.abs(admitted - previous) <= 0.25 + 1e-6).all()
        previous = admitted


@given(action=anything)
def test_what_is_admitted_is_always_finite(action: np.ndarray):
    try:
        admitted = safety.admit(action, None, safety.limits_of(SPEC, []))
    except SafetyError:
        assert not np.isfinite(action).all()
    else:
        assert np.isfinite(admitted).all()
