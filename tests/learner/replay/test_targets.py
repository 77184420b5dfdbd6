from pathlib import Path

import msgspec
import numpy as np
import pytest

from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.replay.statistics import norm_stats
from learner.replay.views import is_moving
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ConfigError
from tests.recorded_episodes import action_of, make_episode, robot, state_of

SPEC = robot(size=8, cameras=1)


def write(root: Path, *lengths: int) -> DatasetWriter:
    writer = DatasetWriter(root, SPEC)
    for number, length in enumerate(lengths):
        writer.append(make_episode(SPEC, number, length))
    return writer


def test_a_measured_label_is_the_state_after_the_step_and_never_of_another_episode(tmp_path: Path) -> None:
    write(tmp_path, 3, 2)
    dataset = ReplayDataset(tmp_path, label="measured")
    wanted = [state_of(0, 1), state_of(0, 2), state_of(0, 3), state_of(1, 1), state_of(1, 2)]
    np.testing.assert_array_equal(dataset.targets, wanted)
    np.testing.assert_array_equal(dataset.steps.action[0], action_of(0, 0))


def test_without_the_option_labels_are_the_executed_commands(tmp_path: Path) -> None:
    write(tmp_path, 3)
    dataset = ReplayDataset(tmp_path)
    np.testing.assert_array_equal(dataset.targets, dataset.steps.action)


def test_measured_labels_follow_a_dataset_that_grows_from_nothing(tmp_path: Path) -> None:
    dataset = ReplayDataset(tmp_path, label="measured")
    assert len(dataset.targets) == 0
    writer = write(tmp_path, 2)
    dataset.refresh()
    assert len(dataset.targets) == 2
    writer.append(make_episode(SPEC, 5, 2))
    dataset.refresh()
    np.testing.assert_array_equal(dataset.targets, [state_of(0, 1), state_of(0, 2), state_of(5, 1), state_of(5, 2)])


def test_samples_statistics_and_the_noop_filter_use_the_measured_labels(tmp_path: Path) -> None:
    write(tmp_path, 4)
    dataset = ReplayDataset(tmp_path, label="measured")
    batch = ChunkSampler(dataset, horizon=2, cameras=()).sample(np.array([0, 3]))
    np.testing.assert_array_equal(batch.actions[0], [state_of(0, 1), state_of(0, 2)])
    np.testing.assert_array_equal(batch.actions[1], [state_of(0, 4), state_of(0, 4)])
    assert batch.is_pad.tolist() == [[False, False], [False, True]]
    assert norm_stats([dataset], 1)["actions"]["mean"][1] == pytest.approx(2.5)
    # States move by 1 per step, actions by 1/32.
    steps = np.arange(4)
    assert is_moving(dataset, steps, threshold=0.4, horizon=1).tolist() == [False, True, True, True]
    assert not is_moving(ReplayDataset(tmp_path), steps, threshold=0.4, horizon=1).any()


def test_a_robot_whose_actions_are_no_positions_has_no_measured_labels(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, action_names=("dx", "dy", "dz"))
    DatasetWriter(tmp_path, spec).append(make_episode(spec, 0, 2))
    with pytest.raises(ConfigError, match=r"dataset\.label=measured needs a robot.*'dx'"):
        ReplayDataset(tmp_path, label="measured")


def test_a_misspelt_label_is_refused() -> None:
    with pytest.raises(ConfigError, match="'commanded' or 'measured', got 'measures'"):
        DatasetConfig(label="measures")
