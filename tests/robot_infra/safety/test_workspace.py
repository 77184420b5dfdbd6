import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra import safety
from robot_infra.envs.sim_pnp import kinematics
from robot_infra.safety.workspace import tip_of
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError
from serl_launcher.specs import ArmChain, RobotSpec, WorkspaceSpec

PLANAR = ArmChain(joints=("j0", "j1"), links=((0.3, 0.0, 0.0, 0.0), (0.2, 0.0, 0.0, 0.0)))
LIFTING = ArmChain(joints=("j0", "j1"), links=((0.0, math.pi / 2, 0.1, 0.0), (0.3, 0.0, 0.0, 0.0)))
SIMULATED = ArmChain(
    joints=tuple(f"j{i}" for i in range(6)),
    links=(
        (0.0, -math.pi / 2, kinematics.SHOULDER_HEIGHT_M, math.pi / 2), (kinematics.UPPER_ARM_M, 0.0, 0.0, 0.0),
        (kinematics.FOREARM_M, 0.0, 0.0, 0.0), (kinematics.HAND_M, 0.0, 0.0, 0.0), (0.0,) * 4, (0.0,) * 4,
    ),
    base=(*kinematics.BASES[0], 0.0),
    to_rad=-1.0,
)  # fmt: skip


def spec(*arms: ArmChain) -> RobotSpec:
    names = ("j0", "j1", "gripper")
    return RobotSpec(
        name="arm", cameras=(), state_names=names, action_names=names, action_low=(-3.0, -3.0, 0.0),
        action_high=(3.0, 3.0, 1.0), control_hz=10.0, max_speed=(2.0,), max_acceleration=(20.0,),
        workspace=WorkspaceSpec(low=(-1.0, -1.0, 0.02), high=(1.0, 1.0, 0.35), arms=arms),
    )  # fmt: skip


def test_a_planar_arm_bent_by_a_right_angle():
    np.testing.assert_allclose(tip_of(PLANAR, np.array([[0.0, math.pi / 2]])), [[0.3, 0.2, 0.0]], atol=1e-12)


def test_a_lifted_arm_turned_by_a_right_angle():
    [tip] = tip_of(LIFTING, np.array([[math.pi / 2, math.pi / 6]]))
    np.testing.assert_allclose(tip, [0.0, 0.3 * math.cos(math.pi / 6), 0.1 + 0.15], atol=1e-12)


def test_an_arm_stands_where_its_base_is_and_its_joints_may_be_in_degrees():
    moved = msgspec.structs.replace(PLANAR, base=(1.0, 2.0, 0.5, math.pi / 2), to_rad=math.pi / 180)
    np.testing.assert_allclose(tip_of(moved, np.array([[0.0, 90.0]])), [[0.8, 2.3, 0.5]], atol=1e-12)


def test_the_simulated_arm_is_where_its_own_kinematics_say():
    joints = np.random.default_rng(0).uniform(kinematics.JOINT_LOW, kinematics.JOINT_HIGH, (50, 6))
    joints[:, 5] = 0.0  # The simulator lets the last joint move the tip sideways, which no chain does.
    expected = [kinematics.tip_position(each, kinematics.BASES[0]) for each in joints]
    np.testing.assert_allclose(tip_of(SIMULATED, joints), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(stream=st.lists(arrays(np.float32, 3, elements=st.floats(-4, 4, width=32)), min_size=5, max_size=20))
def test_whatever_is_wished_the_tip_stays_in_the_box_of_the_spec(stream: list[np.ndarray]):
    gate = safety.Gate(safety.limits_of(spec(LIFTING), []))
    gate.begin(np.array([0.0, 0.2, 0.5]))
    commands = np.stack([gate.admit(wish) for wish in stream])
    heights = tip_of(LIFTING, commands[:, :2])[:, 2]
    assert (heights >= 0.02 - 1e-6).all()
    assert (heights <= 0.35 + 1e-6).all()


def test_a_joint_that_the_robot_has_not_is_named():
    with pytest.raises(ConfigError, match="'elbow'"):
        safety.limits_of(spec(msgspec.structs.replace(PLANAR, joints=("j0", "elbow"))), [])


def test_without_a_workspace_only_the_bounds_count():
    free = msgspec.structs.replace(spec(PLANAR), workspace=None)
    assert safety.limits_of(free, []).workspace is None


@pytest.mark.parametrize(
    ("workspace", "message"),
    [
        ({"low": [0, 0, 0], "high": [1, 1, 1], "arms": []}, "0 arms"),
        (
            {"low": [0, 0, 2], "high": [1, 1, 1], "arms": [{"joints": ["j0"], "links": [[0, 0, 0, 0]]}]},
            "low below high",
        ),
        ({"low": [0, 0, 0], "high": [1, 1, 1], "arms": [{"joints": ["j0"], "links": []}]}, "a link for each"),
        ({"low": [0, 0, 0], "high": [1, 1, 1]}, "arms"),
    ],
)
def test_a_workspace_that_makes_no_sense_is_refused(workspace: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=rf"environment\.workspace.*{message}"):
        EnvironmentConfig(workspace=workspace)
