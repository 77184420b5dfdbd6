import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra import safety
from robot_infra.safety import FaultKind, Gate
from serl_launcher.errors import SafetyError
from tests.robot_infra.safety.test_motion import LIMITS, SPEC, assert_kept

anything = arrays(np.float32, 2, elements=st.floats(width=32, allow_nan=True, allow_infinity=True))
sensible = arrays(np.float32, 2, elements=st.floats(-1.5, 1.5, width=32))
HOME = np.array([0.0, 0.5], np.float32)
EDGES = [np.full(2, place, np.float32) for place in (1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0)]


def gate(*, limits: safety.SafetyLimits = LIMITS, max_tracking_error: float = np.inf) -> Gate:
    guard = Gate(limits, max_tracking_error=max_tracking_error)
    guard.begin(HOME)
    return guard


def moving_gate() -> Gate:
    guard = gate()
    for _ in range(4):
        guard.admit(np.array([1.0, 1.0], np.float32))
    assert guard.is_moving
    return guard


def braked(guard: Gate) -> np.ndarray:
    """Holds until the robot rests; returns the commands [T, A]."""
    commands = [guard.last_command]
    while guard.is_moving:
        commands.append(guard.hold())
        assert len(commands) < 50, "Holding comes to rest."
    return np.stack(commands)


@settings(max_examples=60, deadline=None)
@given(stream=st.lists(st.one_of(sensible, anything), min_size=1, max_size=20))
def test_whatever_is_wished_the_robot_keeps_its_limits_and_every_fault_ends_in_hold(stream: list[np.ndarray]):
    guard = gate()
    commands, has_failed = [HOME], False
    for wish in stream:
        try:
            commands.append(guard.admit(wish))
            assert not has_failed, "Nothing is admitted after a fault."
        except SafetyError:
            has_failed = True
            commands.append(guard.hold())
    assert has_failed == (guard.fault is not None)
    commands += list(braked(guard))[1:]
    assert_kept(np.stack(commands).astype(np.float64), LIMITS)
    if has_failed:
        np.testing.assert_array_equal(guard.hold(), commands[-1])


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        (np.array([np.nan, 0], np.float32), FaultKind.NOT_FINITE),
        (np.array([0, np.inf], np.float32), FaultKind.NOT_FINITE),
        (np.zeros(3, np.float32), FaultKind.WRONG_SHAPE),
    ],
)
def test_a_wish_that_is_none_is_a_fault(wish: np.ndarray, kind: FaultKind):
    guard = gate()
    with pytest.raises(SafetyError):
        guard.admit(wish)
    assert guard.fault is not None
    assert guard.fault.kind is kind


@pytest.mark.parametrize(
    "limits",
    [
        safety.limits_of(SPEC, [], max_jump=[0.5]),
        safety.limits_of(msgspec.structs.replace(SPEC, max_jump=(0.5, 1.0)), []),
        safety.limits_of(msgspec.structs.replace(SPEC, max_jump=(9.0,)), [], max_jump=[0.5]),
    ],
)
def test_a_chunk_that_starts_elsewhere_is_a_fault_where_that_is_configured(limits: safety.SafetyLimits):
    guard = gate(limits=limits)
    guard.admit(np.array([0.4, 0.5], np.float32))
    with pytest.raises(SafetyError, match=r"within 0\.5 of the last command at joint 0"):
        guard.admit(np.array([0.9, 0.5], np.float32))
    assert guard.fault is not None
    assert guard.fault.kind is FaultKind.JUMP


def test_a_fault_stays_until_a_person_clears_it():
    guard = moving_gate()
    guard.trip(FaultKind.EMERGENCY_STOP, "the button is pressed")
    guard.trip(FaultKind.ROBOT, "a later one")
    with pytest.raises(SafetyError, match=r"emergency_stop.*the button is pressed"):
        guard.admit(HOME)
    with pytest.raises(SafetyError, match="person"):
        guard.clear_fault(by=" ")
    braked(guard)
    guard.clear_fault(by="Ada")
    assert guard.fault is None
    guard.admit(HOME)


def test_a_fault_that_came_since_the_person_looked_is_not_cleared():
    guard = gate()
    guard.trip(FaultKind.ROBOT, "an alarm")
    seen = guard.num_faults
    guard.trip(FaultKind.EMERGENCY_STOP, "Ben pressed it")
    with pytest.raises(SafetyError, match="Another fault came while Ada"):
        guard.clear_fault(by="Ada", seen=seen)
    assert guard.fault is not None
    guard.clear_fault(by="Ada", seen=guard.num_faults)
    assert guard.fault is None


def test_an_emergency_stop_reaches_the_robot_even_where_another_fault_is_latched():
    told: list[str] = []
    guard = Gate(LIMITS, on_emergency_stop=told.append)
    guard.trip(FaultKind.ROBOT, "an alarm")
    assert told == []
    with pytest.raises(SafetyError, match="an alarm"):
        guard.require_clear()
    guard.trip(FaultKind.EMERGENCY_STOP, "Ada pressed it")
    guard.trip(FaultKind.EMERGENCY_STOP, "and again")
    assert told == ["Ada pressed it", "and again"]
    guard.clear_fault(by="Ada")
    guard.require_clear()


def test_an_arm_that_does_not_follow_is_a_fault():
    guard = gate(max_tracking_error=0.2)
    guard.check_tracking(np.array([0.1, 0.5]))
    assert guard.fault is None
    guard.check_tracking(np.array([0.1, 0.9]))
    assert guard.fault is not None
    assert guard.fault.kind is FaultKind.TRACKING
    assert "joint 1 is at 0.9" in guard.fault.message


def test_a_measurement_that_is_no_number_is_a_fault():
    guard = gate(max_tracking_error=0.2)
    guard.check_tracking(np.array([np.nan, 0.5]))
    assert guard.fault is not None


def test_before_the_first_command_nothing_is_held_or_tracked():
    guard = Gate(LIMITS)
    guard.begin(None)
    guard.check_tracking(np.array([np.nan, 0.0]))
    guard.note_executed(HOME)
    assert guard.hold() is None
    assert guard.last_command is None
    assert not guard.is_moving
    assert guard.fault is None


def test_a_measured_start_that_is_no_number_is_a_fault():
    guard = Gate(LIMITS)
    with pytest.raises(SafetyError):
        guard.begin(np.array([np.nan, 0.0]))
    assert guard.fault is not None


def test_where_actions_are_no_positions_the_first_one_is_only_clipped():
    guard = Gate(LIMITS)
    guard.begin(None)
    np.testing.assert_array_equal(guard.admit(np.array([5.0, -1.0], np.float32)), [1.0, 0.0])
    assert not guard.is_moving


def test_what_the_robot_made_of_a_command_is_where_the_next_one_starts():
    guard = gate()
    command = guard.admit(np.array([1.0, 0.5], np.float32))
    guard.note_executed(command)
    assert guard.is_moving
    guard.note_executed(HOME)
    assert not guard.is_moving
    np.testing.assert_array_equal(guard.last_command, HOME)


def test_a_robot_that_shortens_every_command_still_moves_and_brakes_within_its_limits():
    """Forgetting its velocity would let the next command be one from rest, a jolt at every tick."""
    guard, executed = gate(), [HOME]
    for _ in range(6):
        command = guard.admit(np.array([1.0, 0.5], np.float32))
        executed.append((executed[-1] + 0.98 * (command - executed[-1])).astype(np.float32))
        guard.note_executed(executed[-1])
        assert guard.is_moving
    path = np.stack([*executed[:-1], *braked(guard)]).astype(np.float64)
    assert path[-1, 0] > executed[-1][0], "It comes to rest further on, not at once."
    assert (np.abs(np.diff(path, axis=0)) <= LIMITS.max_change + 1e-6).all()
    assert (np.abs(np.diff(path, 2, axis=0)) <= LIMITS.max_acceleration + 1e-6).all()


def test_without_limits_on_acceleration_what_was_executed_is_a_place_to_rest():
    guard = gate(limits=safety.limits_of(msgspec.structs.replace(SPEC, max_acceleration=(), max_jerk=()), []))
    guard.admit(np.array([1.0, 0.5], np.float32))
    guard.note_executed(np.array([0.1, 0.5], np.float32))
    assert not guard.is_moving
    np.testing.assert_array_equal(guard.last_command, np.array([0.1, 0.5], np.float32))


@settings(max_examples=40, deadline=None)
@given(
    policy=arrays(np.float32, (12, 2), elements=st.floats(-1.25, 1.25, width=32)),
    person=arrays(np.float32, (12, 2), elements=st.floats(-1.25, 1.25, width=32)),
    who=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_takeover_and_hand_back_at_any_tick_are_without_a_jump(policy: np.ndarray, person: np.ndarray, who: list[bool]):
    guard, commands = gate(), [HOME]
    for tick, is_person in enumerate(who):
        commands.append(guard.admit(person[tick] if is_person else policy[tick]))
    assert_kept(np.stack(commands).astype(np.float64), LIMITS)


@settings(max_examples=40, deadline=None)
@given(stream=st.lists(sensible, min_size=1, max_size=15))
@example(stream=EDGES)
def test_a_second_gate_changes_nothing_that_the_first_let_through(stream: list[np.ndarray]):
    """A robot's own computer guards it again, with the same limits; to the bit, or the two drift apart."""
    first, second = gate(), gate()
    for wish in stream:
        command = first.admit(wish)
        np.testing.assert_array_equal(second.admit(command), command)
