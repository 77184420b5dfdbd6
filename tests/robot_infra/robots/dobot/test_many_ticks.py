"""The gate in front of the emulated arm, without sockets: random wishes and faults, as fast as it goes."""

import numpy as np
import pytest

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.world import home_joints
from robot_infra.robots.dobot.emulator.controller import ArmPhysics
from robot_infra.safety import FaultKind, Gate, limits_of
from serl_launcher.errors import SafetyError
from serl_launcher.specs import RobotSpec

NAMES = tuple(f"j{i}" for i in range(6))
MAX_SPEED = 2.0
SPEC = RobotSpec(
    name="arm", cameras=(), state_names=NAMES, action_names=NAMES, action_low=tuple(kinematics.JOINT_LOW),
    action_high=tuple(kinematics.JOINT_HIGH), control_hz=10.0, max_speed=(MAX_SPEED,), max_acceleration=(20.0,),
    max_jerk=(400.0,),
)  # fmt: skip
POINTS_PER_TICK = 3


def play(num_ticks: int, *, seed: int) -> tuple[ArmPhysics, int]:
    """Plays random ticks; checks limits after each point; returns the arm and how many faults there were."""
    rng = np.random.default_rng(seed)
    arm = ArmPhysics(joints=home_joints(0), low=kinematics.JOINT_LOW, high=kinematics.JOINT_HIGH, is_enabled=True)
    gate, num_faults, wish = Gate(limits_of(SPEC, [])), 0, home_joints(0)
    gate.begin(arm.joints)
    for _ in range(num_ticks):
        event = rng.random()
        if event < 0.1:
            wish = rng.uniform(1.5 * kinematics.JOINT_LOW, 1.5 * kinematics.JOINT_HIGH)
        before = gate.last_command
        try:
            command = gate.admit(np.full(6, np.nan) if event > 0.998 else wish.astype(np.float32))
        except SafetyError:
            command = gate.hold()
        if 0.99 < event <= 0.991:
            gate.trip(FaultKind.EMERGENCY_STOP, "pressed")
        move(arm, before, command)
        if gate.fault is not None and not gate.is_moving:
            num_faults += 1
            gate.clear_fault(by="the test")
    return arm, num_faults


def move(arm: ArmPhysics, before: np.ndarray, command: np.ndarray) -> None:
    for point in range(1, POINTS_PER_TICK + 1):
        last = arm.joints
        assert arm.servo(before + point / POINTS_PER_TICK * (command.astype(np.float64) - before))
        arm.advance(0.1 / POINTS_PER_TICK)
        assert (arm.joints >= arm.low - 1e-6).all()
        assert (arm.joints <= arm.high + 1e-6).all()
        assert np.abs(arm.joints - last).max() <= 1.5 * MAX_SPEED * 0.1 / POINTS_PER_TICK


def test_the_arm_keeps_its_limits_under_random_wishes_and_faults():
    arm, num_faults = play(1500, seed=0)
    assert not arm.has_error
    assert num_faults > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_arm_keeps_its_limits_in_a_hundred_thousand_ticks():
    arm, num_faults = play(100_000, seed=1)
    assert not arm.has_error
    assert num_faults > 100
