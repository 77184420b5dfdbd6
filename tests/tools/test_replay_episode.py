import contextlib

import numpy as np
import pytest

from serl_launcher.errors import RobotError
from tests.actor.test_rollout_of_a_robot import TimedRobot
from tests.actor.tiny_robot import TinyRobot, towards
from tools.replay_episode import parsed, replay


def test_a_recorded_episode_is_played_again_from_its_start():
    robot = TinyRobot(max_steps=50)
    actions = towards(robot.reset(seed=0), 0.5, horizon=6)
    states = np.concatenate([robot.joints[None], actions[:-1]])
    done = replay(TinyRobot(max_steps=50), actions, states, seed=0)
    assert done.success
    assert done.max_difference < 1e-6


def test_a_robot_that_stands_elsewhere_goes_to_the_start_first():
    states = np.full((3, 2), 0.1, np.float32)
    done = replay(TinyRobot(max_steps=50), states, states, seed=7)
    assert done.num_steps == 3
    assert done.max_difference < 1e-5


def test_an_episode_longer_than_the_time_limit_is_played_to_its_end():
    states = np.full((6, 2), 0.1, np.float32)
    assert replay(TinyRobot(max_steps=2), states, states, seed=7).num_steps == 6


@pytest.mark.parametrize("num_good", [100, 4])
def test_a_real_robot_is_left_at_rest_also_after_an_error(num_good: int):
    robot = TimedRobot(max_steps=50, fails_at=num_good)
    states = np.linspace(0.0, 1.5, 12, dtype=np.float32)[:, None].repeat(2, axis=1)
    with contextlib.suppress(RobotError):
        replay(robot, states, states, seed=1)
    speeds = robot.last_moves()
    assert max(speeds) > 0.03
    assert speeds[-1] < 0.03


def test_overrides_may_follow_the_options():
    chosen = parsed(["data", "--episode", "3", "task=dobot_pnp", "--seed", "7", "environment.hz=5"])
    assert (chosen.dataset, chosen.episode, chosen.seed) == ("data", 3, 7)
    assert chosen.overrides == ["task=dobot_pnp", "environment.hz=5"]
