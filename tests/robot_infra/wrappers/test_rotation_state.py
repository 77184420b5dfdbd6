import numpy as np
import pytest

from robot_infra.wrappers.rotation_state import RotationState
from serl_launcher.errors import ConfigError
from tests.robot_infra.wrappers.pose_robot import PoseRobot

QUATERNION = ["qx", "qy", "qz", "qw"]


def test_euler_angles_take_the_place_of_the_quaternion():
    robot = RotationState(PoseRobot(), quaternion=QUATERNION, prefix="hand_")
    assert robot.spec.state_names[-3:] == ("hand_roll", "hand_pitch", "hand_yaw")
    np.testing.assert_allclose(robot.reset(seed=0).state[-3:], [0.0, 0.0, 0.7], atol=1e-6)
    assert robot.step(np.zeros(4, np.float32)).observation.state.shape == (9,)


def test_six_numbers_take_the_place_of_the_quaternion():
    robot = RotationState(PoseRobot(), quaternion=QUATERNION, form="six")
    assert robot.spec.state_dim == 12
    np.testing.assert_allclose(robot.reset(seed=0).state[-6:-3], [np.cos(0.7), np.sin(0.7), 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quaternion": ["qx"]}, "four neighbours"),
        ({"quaternion": ["q"]}, "unknown"),
        ({"quaternion": QUATERNION, "form": "x"}, "form"),
    ],
)
def test_what_is_no_quaternion_is_refused(arguments: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        RotationState(PoseRobot(), **arguments)
