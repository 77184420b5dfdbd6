import numpy as np
import pytest

from robot_infra.wrappers.relative_frame import RelativeFrame
from robot_infra.wrappers.rotations import euler_to_matrix
from serl_launcher.errors import ConfigError
from tests.robot_infra.wrappers.pose_robot import MOTION, POSE, PoseRobot

ACTIONS = np.random.default_rng(0).uniform(-0.1, 0.1, (6, 4)).astype(np.float32)


def states(start: np.ndarray, turn: np.ndarray) -> np.ndarray:
    robot = RelativeFrame(PoseRobot(start=start, turn=turn), pose=POSE, motion=MOTION)
    first = robot.reset(seed=0).state
    return np.stack([first, *(robot.step(action).observation.state for action in ACTIONS)])[:, :6]


def test_an_episode_begins_at_the_origin():
    np.testing.assert_allclose(states(np.array([1, 2, 3, 0.1, -0.2, 0.7]), np.zeros(3))[0], 0.0, atol=1e-6)


def test_what_is_seen_and_done_does_not_depend_on_where_the_scene_stands():
    """The same motions of the hand, from the base's origin and from a place 3 m away that is turned by 1.2 rad."""
    yaw = np.array([0.0, 0.0, 0.1])  # A turn about the base's z axis, which both scenes share.
    np.testing.assert_allclose(states(np.zeros(6), yaw), states(np.array([3, -1, 0.5, 0, 0, 1.2]), yaw), atol=1e-5)


def test_a_motion_is_meant_in_the_frame_of_the_hand():
    inner = PoseRobot(start=np.array([0, 0, 0, 0, 0, np.pi / 2]), turn=np.zeros(3))
    robot = RelativeFrame(inner, pose=POSE, motion=MOTION)
    robot.reset(seed=0)
    transition = robot.step(np.array([0.1, 0, 0, 0.5], np.float32))
    np.testing.assert_allclose(inner.pose[:3], [0.0, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(transition.executed_action, [0.1, 0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(transition.observation.state[:3], [0.1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(euler_to_matrix(transition.observation.state[3:6]), np.eye(3), atol=1e-6)


def test_a_pose_has_six_numbers():
    with pytest.raises(ConfigError, match="6 names"):
        RelativeFrame(PoseRobot(), pose=["x"], motion=MOTION)
