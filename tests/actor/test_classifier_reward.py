"""A trained classifier's files judge episodes through the configuration alone."""

import numpy as np
import pytest
import torch

from actor.beside import Beside
from serl_launcher.config import RunConfig, load
from serl_launcher.errors import ConfigError
from serl_launcher.policies.reward_classifier import ClassifierSpec, RewardClassifier, save_reward_classifier
from serl_launcher.specs import CameraSpec
from serl_launcher.types import Observation, Outcome
from tests.actor.tiny_robot import TinyRobot

CAMERA = CameraSpec(name="cam", height=16, width=16)


def observation():
    return Observation(images={"cam": np.zeros(CAMERA.shape, np.uint8)}, state=np.zeros(2, np.float32), prompt="")


@pytest.fixture(name="config")
def fixture_config(tmp_path):
    spec = ClassifierSpec(cameras=(CAMERA,), state_dim=0, features=4, hidden_dims=(4,), threshold=0.9)
    classifier = RewardClassifier(spec)
    with torch.no_grad():
        classifier.head.layers[-1].bias.fill_(20.0)
    save_reward_classifier(classifier, tmp_path)
    config = RunConfig()
    config.actor.rewards.sources = ["classifier"]
    config.actor.rewards.classifier_path = str(tmp_path)
    config.actor.rewards.num_positive, config.actor.rewards.window = 2, 3
    return config


def test_enough_pictures_above_the_classifiers_own_threshold_end_the_episode(config):
    beside = Beside.open(config)
    (watcher,) = beside._watchers()
    beside.bus.begin()
    watcher.begin()
    watcher.look(observation())
    assert beside.bus.take() is None
    watcher.look(observation())
    verdict = beside.bus.take()
    assert verdict is not None
    assert (verdict.outcome, verdict.by) == (Outcome.SUCCESS, "classifier")


def test_a_threshold_of_the_configuration_counts_instead(config):
    config.actor.rewards.threshold = 1.1
    beside = Beside.open(config)
    (watcher,) = beside._watchers()
    beside.bus.begin()
    for _ in range(5):
        watcher.look(observation())
    assert beside.bus.take() is None


def test_a_missing_classifier_is_told_with_what_to_do(config):
    config.actor.rewards.classifier_path = None
    with pytest.raises(ConfigError, match="algo=reward_classifier"):
        Beside.open(config)._watchers()


def test_stages_are_classifiers_in_their_order(config):
    config.actor.rewards.sources = ["process", "keyboard"]
    config.actor.rewards.stage_paths = [config.actor.rewards.classifier_path] * 2
    beside = Beside(config)
    rewarder = beside._rewarder(TinyRobot().spec)
    assert rewarder is not None
    beside.bus.begin()
    rewarder.begin()
    rewarder.look(observation())
    assert (rewarder.reward, beside.bus.take()) == (0.0, None)
    rewarder.look(observation())
    assert rewarder.reward == 2.0
    verdict = beside.bus.take()
    assert verdict is not None
    assert verdict.by == "process"


def test_stages_without_classifiers_are_told_with_what_to_do(config):
    config.actor.rewards.sources = ["process"]
    with pytest.raises(ConfigError, match="stage_paths"):
        Beside(config)._rewarder(TinyRobot().spec)


def test_nearness_to_a_goal_is_configured():
    robot = TinyRobot(max_steps=5)
    name = robot.spec.state_names[0]
    rewards = ["sources=[naive]", "goal_scale=2.0", "goal_radius=0.0"]
    config = load([f"+actor.rewards.goal={{{name}: 0.0}}", *(f"actor.rewards.{each}" for each in rewards)])
    env = Beside.open(config).judged(robot)
    env.reset(seed=0)
    transition = env.step(np.zeros(2, np.float32))
    assert transition.reward == pytest.approx((2.0 - abs(float(transition.observation.state[0]))) / 2.0)
