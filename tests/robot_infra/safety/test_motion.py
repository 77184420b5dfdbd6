import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.safety import Motion, SafetyLimits, Workspace, braking_motion, limits_of, next_motion
from serl_launcher.specs import RobotSpec

SPEC = RobotSpec(
    name="two joints",
    cameras=(),
    state_names=("j0", "gripper"),
    action_names=("j0", "gripper"),
    action_low=(-1.0, 0.0),
    action_high=(1.0, 1.0),
    control_hz=10.0,
    max_speed=(2.0, 4.0),
    max_acceleration=(8.0, 20.0),
    max_jerk=(60.0, 400.0),
)
LIMITS = limits_of(SPEC, [])
wishes = arrays(np.float32, 2, elements=st.floats(-3, 3, width=32))
starts = arrays(np.float32, 2, elements=st.floats(0, 1, width=32))


def assert_kept(positions: np.ndarray, limits: SafetyLimits) -> None:
    """Checks commands [T, A] that begin at rest: bounds, speed, acceleration, jerk."""
    padded = np.concatenate([np.repeat(positions[:1], 3, axis=0), positions])
    assert (positions >= limits.low - 1e-6).all()
    assert (positions <= limits.high + 1e-6).all()
    assert (np.abs(np.diff(padded, axis=0)) <= limits.max_change + 1e-6).all()
    assert (np.abs(np.diff(padded, 2, axis=0)) <= limits.max_acceleration + 1e-6).all()
    assert (np.abs(np.diff(padded, 3, axis=0)) <= limits.max_jerk + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(stream=st.lists(wishes, min_size=1, max_size=25), start=starts)
def test_no_stream_of_wishes_leads_out_of_any_limit(stream: list[np.ndarray], start: np.ndarray):
    motion, positions = Motion.at_rest(start), [start.astype(np.float64)]
    for wish in stream:
        motion = next_motion(wish, motion, LIMITS)
        positions.append(motion.position)
    while not motion.is_resting:
        motion = braking_motion(motion, LIMITS)
        positions.append(motion.position)
        assert len(positions) < 200, "Braking ends."
    assert_kept(np.stack(positions), LIMITS)


def test_a_constant_wish_is_reached_and_not_overshot():
    motion, positions = Motion.at_rest(np.array([-0.8, 0.0])), []
    for _ in range(60):
        motion = next_motion(np.array([0.9, 1.0], np.float32), motion, LIMITS)
        positions.append(motion.position)
    np.testing.assert_allclose(positions[-1], [0.9, 1.0], atol=1e-3)
    assert (np.stack(positions) <= [0.9 + 1e-3, 1.0 + 1e-3]).all()


def test_a_far_wish_is_followed_at_full_speed():
    """Speed 2 rad/s, acceleration 8 rad/s^2: a move of 1.6 rad takes 0.8 s + 0.25 s and a little for the jerk."""
    motion, num_ticks = Motion.at_rest(np.array([-0.8, 0.5])), 0
    while abs(motion.position[0] - 0.8) > 0.01:
        motion, num_ticks = next_motion(np.array([0.8, 0.5], np.float32), motion, LIMITS), num_ticks + 1
    assert 10 <= num_ticks <= 15


def test_wishes_that_keep_the_limits_are_executed_as_they_are():
    """A stream that could end in rest after every tick passes unchanged."""
    loose = limits_of(msgspec.structs.replace(SPEC, max_jerk=(4000.0,)), [])
    motion = Motion.at_rest(np.array([0.0, 0.5]))
    for tick in range(1, 20):
        wish = np.array([0.07 * np.sin(0.3 * tick), 0.5], np.float32)
        motion = next_motion(wish, motion, loose)
        np.testing.assert_allclose(motion.position, wish, atol=1e-6)


@pytest.mark.parametrize("start", [1.5, -1.5])
def test_a_robot_outside_of_its_bounds_may_come_back_and_go_no_further_out(start: float):
    motion = Motion.at_rest(np.array([start, 0.5]))
    out = next_motion(np.array([2 * start, 0.5], np.float32), motion, LIMITS)
    assert abs(out.position[0]) <= abs(start) + 1e-9
    for _ in range(40):
        motion = next_motion(np.array([0.0, 0.5], np.float32), motion, LIMITS)
        assert abs(motion.position[0]) <= abs(start) + 1e-9
    assert abs(motion.position[0]) < 0.01


def test_without_acceleration_and_jerk_only_bounds_and_change_count():
    plain = limits_of(
        msgspec.structs.replace(SPEC, max_jerk=(), max_acceleration=()),
        [0.1],
    )
    motion = next_motion(np.array([5.0, 0.52], np.float32), Motion.at_rest(np.array([0.95, 0.5])), plain)
    np.testing.assert_allclose(motion.position, [1.0, 0.52])
    assert motion.is_resting
    assert braking_motion(motion, plain).is_resting


def tips(joints: np.ndarray) -> np.ndarray:
    """Tip of one simulated arm, [N, 1, 3]."""
    return np.stack([kinematics.tip_position(each, kinematics.BASES[0]) for each in joints])[:, None]


def arm_limits(*, smooth: bool) -> SafetyLimits:
    names = tuple(f"j{i}" for i in range(6))
    spec = RobotSpec(
        name="arm", cameras=(), state_names=names, action_names=names, control_hz=10.0,
        action_low=tuple(kinematics.JOINT_LOW), action_high=tuple(kinematics.JOINT_HIGH), max_speed=(2.2,),
        max_acceleration=(15.0,) if smooth else (), max_jerk=(200.0,) if smooth else (),
    )  # fmt: skip
    box = Workspace(low=np.array([-0.45, 0.05, 0.02]), high=np.array([0.05, 0.45, 0.4]), points=tips)
    return limits_of(spec, [], workspace=box)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_tip_never_leaves_the_workspace(smooth: bool):
    limits = arm_limits(smooth=smooth)
    workspace = limits.workspace
    assert workspace is not None
    rng = np.random.default_rng(0)
    start = kinematics.joints_for_tip(np.array([-0.2, 0.2, 0.15]), kinematics.BASES[0])
    motion, was_stopped = Motion.at_rest(start), False
    wish = start
    for tick in range(150):
        if tick % 10 == 0:
            wish = rng.uniform(kinematics.JOINT_LOW, kinematics.JOINT_HIGH)
        motion = next_motion(wish.astype(np.float32), motion, limits)
        tip = tips(motion.position[None])[0, 0]
        assert (tip >= workspace.low - 1e-6).all()
        assert (tip <= workspace.high + 1e-6).all()
        was_stopped |= motion.is_resting
    assert was_stopped, "The box got in the way at least once."


def test_a_tip_outside_of_the_workspace_may_come_back():
    limits = arm_limits(smooth=False)
    outside = kinematics.joints_for_tip(np.array([-0.2, 0.52, 0.15]), kinematics.BASES[0])
    inside = kinematics.joints_for_tip(np.array([-0.2, 0.25, 0.15]), kinematics.BASES[0])
    motion = Motion.at_rest(outside)
    for _ in range(40):
        motion = next_motion(inside.astype(np.float32), motion, limits)
    np.testing.assert_allclose(motion.position, inside, atol=1e-3)


def test_a_motion_that_nothing_can_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("robot_infra.safety.motion.MAX_BRAKING_TICKS", 1)
    motion = next_motion(np.array([1.0, 1.0], np.float32), Motion.at_rest(np.array([0.0, 0.5])), LIMITS)
    assert motion.is_resting
