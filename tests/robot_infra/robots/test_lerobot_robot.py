from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("lerobot")

from robot_infra.envs import build
from robot_infra.robots.lerobot_robot import LeRobotLeader, LeRobotRobot
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError, RobotError, SafetyError
from tests.robot_infra.robots import fake_lerobot

MODULE = fake_lerobot.__name__


def config(*, robot: dict[str, object] | None = None, **options: object) -> EnvironmentConfig:
    settings = {"type": "fake_arm", "module": MODULE, "port": "/dev/fake"} | (robot or {})
    return EnvironmentConfig(
        name="lerobot", hz=50.0, image_size=[10, 8], image_keys=["front"], max_episode_length=3, prompts=["lift it"],
        max_speed=[500.0], options={"robot": settings, "wait_for_after_reset_time": 0.0} | options,
    )  # fmt: skip


def opened(made: EnvironmentConfig) -> LeRobotRobot:
    robot = build(made)
    assert isinstance(robot, LeRobotRobot)
    return robot


def test_the_spec_comes_from_the_features():
    robot = opened(config(bounds={"shoulder.pos": [-45, 45]}))
    assert robot.spec.state_names == robot.spec.action_names == ("shoulder.pos", "gripper.pos")
    assert (robot.spec.action_low, robot.spec.action_high) == ((-45.0, 0.0), (45.0, 100.0))
    assert robot.spec.camera("front").shape == (8, 10, 3)
    robot.close()


def test_an_episode_goes_to_the_reset_pose_in_time_and_then_follows_its_actions():
    robot = opened(config(reset_pose={"shoulder.pos": 40.0}))
    observation = robot.reset(seed=0)
    np.testing.assert_allclose(observation.state, [40.0, 50.0], atol=1e-4)
    assert (observation.images["front"] == 9).all()
    steps = [robot.step(np.array([99.0, 50.0], np.float32)) for _ in range(3)]
    assert [step.truncated for step in steps] == [False, False, True]
    np.testing.assert_allclose(
        steps[-1].executed_action, [70.0, 50.0], atol=1e-3
    )  # 500 per second at 50 Hz: 10 a tick.
    assert robot.render().shape == (8, 10, 3)
    robot.close()
    robot.close()


def test_a_robot_that_does_not_answer_is_a_latched_fault():
    robot = opened(config(robot={"fails_after": 1}))
    robot.reset(seed=0)
    robot.step(np.array([10.0, 50.0], np.float32))
    with pytest.raises(SafetyError, match="the bus is silent"):
        robot.step(np.array([10.0, 50.0], np.float32))
    with pytest.raises(SafetyError):
        robot.step(np.array([10.0, 50.0], np.float32))
    robot.close()


def test_a_leader_arm_has_the_actions_of_the_robot():
    made = config(teleoperator={"type": "fake_leader", "module": MODULE, "value": 12.0})
    robot = opened(made)
    leader = LeRobotLeader(made, robot.spec)
    np.testing.assert_array_equal(leader.positions(), [12.0, 12.0])
    leader.close()
    robot.close()


def test_a_leader_arm_that_does_not_answer_is_said_so():
    made = config(teleoperator={"type": "fake_leader", "module": MODULE, "is_silent": True})
    with closing(opened(made)) as robot, closing(LeRobotLeader(made, robot.spec)) as leader:
        with pytest.raises(RobotError, match="the leader's bus is silent"):
            leader.positions()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config(robot={"type": "no_such_arm"}), r"no_such_arm.*Known types"),
        (config(robot={"module": "no.such.module"}), r"needs no\.such\.module"),
        (config(bounds={"elbow": [0, 1]}), "elbow"),
        (config(colour="red"), "colour"),
    ],
)
def test_settings_that_make_no_sense_are_named(made: EnvironmentConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        build(made)


def test_a_port_without_a_robot_is_said_so():
    with pytest.raises(RobotError, match="no such port"):
        build(config(robot={"port": "none"}))
