from pathlib import Path

import numpy as np
import pytest

from learner.replay.reader import ReplayDataset
from learner.replay.statistics import norm_stats
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from tests.recorded_episodes import action_of, make_episode, robot, state_of

SPEC = robot(size=8, cameras=1)


@pytest.fixture
def dataset(tmp_path: Path) -> ReplayDataset:
    writer = DatasetWriter(tmp_path, SPEC)
    writer.append(make_episode(SPEC, 0, 3))
    writer.append(make_episode(SPEC, 1, 2))
    return ReplayDataset(tmp_path)


def test_actions_count_once_per_chunk_they_are_in_and_padding_never(dataset: ReplayDataset) -> None:
    # Chunks of two: steps (0,1) (1,2) (2) of the first episode, (0,1) (1) of the second.
    actions = np.array([action_of(0, s) for s in (0, 1, 1, 2, 2)] + [action_of(1, s) for s in (0, 1, 1)])
    stats = norm_stats([dataset], 2)["actions"]
    np.testing.assert_allclose(stats["mean"], actions.mean(axis=0))
    np.testing.assert_allclose(stats["std"], actions.std(axis=0))
    np.testing.assert_allclose(stats["q99"], np.quantile(actions, 0.99, axis=0), rtol=1e-6)


def test_delta_dimensions_are_relative_to_the_state_of_the_chunk_s_first_tick(dataset: ReplayDataset) -> None:
    mask = np.array([False, True, False])
    pairs = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 2), (0, 2, 2), (1, 0, 0), (1, 0, 1), (1, 1, 1)]
    wanted = np.array([action_of(e, s) - np.where(mask, state_of(e, first), 0) for e, first, s in pairs])
    stats = norm_stats([dataset], 2, mask)
    np.testing.assert_allclose(stats["actions"]["mean"], wanted.mean(axis=0))
    states = np.array([state_of(0, s) for s in range(3)] + [state_of(1, s) for s in range(2)])
    np.testing.assert_allclose(stats["state"]["mean"], states.mean(axis=0))


@pytest.mark.parametrize("mask", [None, np.array([False, True, False])])
def test_every_chunk_counts_however_large_the_dataset(tmp_path: Path, monkeypatch, mask) -> None:
    monkeypatch.setattr("learner.replay.statistics.BLOCK_STEPS", 7)
    writer = DatasetWriter(tmp_path, SPEC)
    for number in range(3):
        writer.append(make_episode(SPEC, number, 20 + number))
    stats = norm_stats([ReplayDataset(tmp_path)], 3, mask)
    actions = [
        action_of(episode, step) - (0 if mask is None else np.where(mask, state_of(episode, first), 0))
        for episode in range(3)
        for first in range(20 + episode)
        for step in range(first, min(first + 3, 20 + episode))
    ]
    for name, value in (("mean", np.mean(actions, 0)), ("std", np.std(actions, 0))):
        np.testing.assert_allclose(stats["actions"][name], value, rtol=1e-5)
    np.testing.assert_allclose(stats["actions"]["q01"], np.quantile(actions, 0.01, axis=0), rtol=1e-5)


def test_several_datasets_count_by_their_steps(dataset: ReplayDataset, tmp_path: Path) -> None:
    once, twice = norm_stats([dataset], 2), norm_stats([dataset, dataset, ReplayDataset(tmp_path / "none")], 2)
    np.testing.assert_allclose(twice["actions"]["mean"], once["actions"]["mean"])
    np.testing.assert_allclose(twice["state"]["std"], once["state"]["std"])


def test_a_mask_of_another_width_is_refused(dataset: ReplayDataset) -> None:
    with pytest.raises(ValueError, match="delta_actions=false"):
        norm_stats([dataset], 2, np.ones(5, bool))


def test_no_steps_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="at least one recorded step"):
        norm_stats([ReplayDataset(tmp_path)], 2)
