import numpy as np
import pytest
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.algorithms.reject_sampling import threshold_in_force
from learner.replay.reader import ReplayDataset
from learner.trainer.start import starting_policy
from serl_launcher.config.training import AlgoConfig
from serl_launcher.errors import ConfigError
from serl_launcher.types import Outcome


@pytest.fixture(name="replay")
def fixture_replay(run):
    run.record(Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.ABORTED, length=5)
    return ReplayDataset(run.directory.replay)


def algorithm_of(run, replay, name="reject_sampling_pi0"):
    run.config.algo.name = name
    return build_algorithm(run.config, starting_policy(run.config, [replay]), Accelerator(cpu=True), seed=0)


def test_only_steps_of_successful_episodes_are_drawn(run, replay):
    algorithm = algorithm_of(run, replay)
    assert algorithm.accepted(replay).tolist() == [True, False, True, False]
    assert np.flatnonzero(algorithm.online_weights(replay)).tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


def test_short_episodes_are_not_accepted(run, replay):
    run.config.dataset.min_episode_steps = 6
    assert not algorithm_of(run, replay).accepted(replay).any()


def test_supervised_fine_tuning_learns_nothing_online(run, replay):
    algorithm = algorithm_of(run, replay, "sft_pi0")
    assert not algorithm.online_weights(replay).any()
    assert algorithm.offline_fraction == 1.0


def test_an_unknown_algorithm_is_refused_with_the_known_ones(run, replay):
    with pytest.raises(ConfigError, match="reject_sampling_pi0"):
        algorithm_of(run, replay, "sac_pi9")


def test_without_a_schedule_the_threshold_is_fixed():
    assert threshold_in_force(np.ones(1000), AlgoConfig(success_threshold=0.6)) == 0.6


def test_the_threshold_rises_with_accepted_episodes_only():
    config = AlgoConfig(success_threshold=0.1, threshold_schedule=[0.2, 0.5, 0.9], threshold_period=2)
    assert threshold_in_force(np.array([0.3, 0.1]), config) == 0.2
    assert threshold_in_force(np.array([0.3, 0.1, 0.2]), config) == 0.5
    # 0.3 does not count any more once 0.5 is in force.
    assert threshold_in_force(np.array([0.3, 0.2, 0.3, 0.6]), config) == 0.5
    assert threshold_in_force(np.array([0.3, 0.2, 0.3, 0.6, 1.0]), config) == 0.9
    assert threshold_in_force(np.ones(100), config) == 0.9
