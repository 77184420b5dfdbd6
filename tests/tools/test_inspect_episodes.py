from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import ConfigError
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import make_episode, robot
from tools.inspect_episodes import contact_sheet, open_dataset, plot, steps_of, table


@pytest.fixture
def dataset(tmp_path: Path) -> ReplayDataset:
    spec, root = robot(), tmp_path / "dataset"
    writer = DatasetWriter(root, spec)
    writer.append(make_episode(spec, 0, 6))
    sources = [Source.POLICY, Source.HUMAN, Source.HUMAN, Source.POLICY]
    writer.append(make_episode(spec, 1, 4, outcome=Outcome.FAILURE, sources=sources))
    return ReplayDataset(root)


def test_the_table_has_a_line_per_episode(dataset: ReplayDataset):
    head, first, second = table(dataset)
    assert head.split()[:3] == ["episode", "steps", "outcome"]
    assert first.split()[:3] == ["0", "6", "success"]
    assert second.split()[:4] == ["1", "4", "failure", "2"]


def test_pictures_go_from_begin_to_end_one_row_per_camera(dataset: ReplayDataset):
    sheet = np.asarray(contact_sheet(dataset, 1, min_height=1))
    assert sheet.shape == (48, 5 * 24, 3)
    assert abs(int(sheet[10, 10, 2]) - 0) < 12
    assert abs(int(sheet[10, -10, 2]) - 15) < 12


def test_small_pictures_are_enlarged_and_named(dataset: ReplayDataset):
    sheet = np.asarray(contact_sheet(dataset, 1))
    assert sheet.shape == (2 * 168, 5 * 168, 3)
    assert sheet[:14, :60].max() > 200


def test_the_motion_is_plotted(dataset: ReplayDataset, tmp_path: Path):
    plot(dataset, 1, tmp_path / "motion.png")
    with Image.open(tmp_path / "motion.png") as picture:
        assert picture.width > 400


def test_an_episode_that_is_not_there_is_refused(dataset: ReplayDataset):
    assert list(steps_of(dataset, 1)) == [6, 7, 8, 9]
    with pytest.raises(ConfigError, match="from 0 to 1, got 2"):
        steps_of(dataset, 2)


def test_a_run_is_as_good_as_its_dataset_and_a_wrong_name_is_said(tmp_path: Path):
    spec = robot()
    DatasetWriter(tmp_path / "run" / "replay_buffer", spec).append(make_episode(spec, 0, 3))
    assert open_dataset(str(tmp_path / "run")).num_episodes == 1
    with pytest.raises(ConfigError, match="there is nothing"):
        open_dataset(str(tmp_path / "rum"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no episode yet"):
        open_dataset(str(tmp_path / "empty"))
