import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets import metadata
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=8, cameras=1)


def record(root: Path, *numbers: int) -> None:
    writer = DatasetWriter(root, SPEC)
    for number in numbers:
        writer.append(make_episode(SPEC, number, 2))


def indices(root: Path, number: int) -> list[int]:
    return pq.ParquetFile(DatasetLayout(root).metadata_file(number)).read()["episode_index"].to_pylist()


def test_rows_share_a_file_until_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "ROWS_PER_FILE", 3)
    record(tmp_path, 0, 1)
    record(tmp_path, 2, 3, 4, 5, 6)
    assert [indices(tmp_path, number) for number in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    row = pq.ParquetFile(DatasetLayout(tmp_path).metadata_file(1)).read().to_pylist()[2]
    assert (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) == (0, 1)
    assert ReplayDataset(tmp_path).num_episodes == 7


def test_a_dataset_with_a_file_per_episode_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "ROWS_PER_FILE", 1)
        record(tmp_path, 0, 1)
    dataset = ReplayDataset(tmp_path)
    record(tmp_path, 2, 3)
    assert [indices(tmp_path, number) for number in range(2)] == [[0], [1, 2, 3]]
    assert dataset.refresh()
    assert dataset.num_episodes == 4


def test_a_label_changes_one_row_of_its_file(tmp_path: Path) -> None:
    record(tmp_path, 0, 1, 2)
    path = DatasetLayout(tmp_path).metadata_file(0)
    before = pq.ParquetFile(path).read().to_pylist()
    writer = DatasetWriter(tmp_path, SPEC)
    writer.relabel("a-1-1", EpisodeLabelled("a-1-1", Outcome.FAILURE, "human", 9.0))
    writer.append(make_episode(SPEC, 3, 2))
    after = pq.ParquetFile(path).read().to_pylist()
    assert [row["outcome"] for row in after] == ["success", "failure", "success", "success"]
    assert (after[0], after[2]) == (before[0], before[2])


def test_metadata_without_steps_is_set_aside(tmp_path: Path) -> None:
    record(tmp_path, 0)
    layout = DatasetLayout(tmp_path)
    info = layout.info.read_bytes()
    record(tmp_path, 1)
    layout.info.write_bytes(info)
    layout.data_file(1).unlink()  # As a power cut may leave it.
    writer = DatasetWriter(tmp_path, SPEC)
    assert writer.num_episodes == 1
    assert indices(tmp_path, 0) == [0]
    assert len(list((tmp_path / "set_aside" / "meta").iterdir())) == 1
    assert writer.append(make_episode(SPEC, 1, 3)) == 1
    assert json.loads(layout.info.read_text())["total_frames"] == 5


def test_a_gap_in_the_metadata_is_an_error(tmp_path: Path) -> None:
    record(tmp_path, 0, 1, 2)
    path = DatasetLayout(tmp_path).metadata_file(0)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.take([0, 2]), path)
    with pytest.raises(DatasetError, match="metadata of episode 1"):
        DatasetWriter(tmp_path, SPEC)
