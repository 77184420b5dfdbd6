import numpy as np

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


def test_overrides_may_follow_the_options():
    chosen = parsed(["data", "--episode", "3", "task=dobot_pnp", "--seed", "7", "environment.hz=5"])
    assert (chosen.dataset, chosen.episode, chosen.seed) == ("data", 3, 7)
    assert chosen.overrides == ["task=dobot_pnp", "environment.hz=5"]
