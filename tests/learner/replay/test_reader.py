import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.images import decode_image
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import action_of, image_of, make_episode, robot, state_of

SPEC = robot()


def label(outcome: Outcome) -> EpisodeLabelled:
    return EpisodeLabelled("a-1-0", outcome, "human", 9.0)


def test_a_dataset_that_does_not_exist_yet_is_empty_until_it_does(tmp_path: Path) -> None:
    dataset = ReplayDataset(tmp_path / "replay")
    assert (dataset.num_episodes, dataset.num_steps, dataset.camera_names) == (0, 0, ())
    assert not dataset.refresh()

    DatasetWriter(tmp_path / "replay", SPEC).append(make_episode(SPEC, 0, 3))

    assert dataset.refresh()
    assert (dataset.num_steps, dataset.camera_names, dataset.spec) == (3, ("cam_0", "cam_1"), SPEC)


def test_every_step_comes_back_as_recorded(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    dataset = ReplayDataset(tmp_path)
    for number, length in enumerate((4, 1, 6)):
        writer.append(make_episode(SPEC, number, length))
        assert dataset.refresh()
    assert dataset.episodes.length.tolist() == [4, 1, 6]
    for step in range(dataset.num_steps):
        episode = int(dataset.steps.episode[step])
        frame = step - int(dataset.episodes.first_step[episode])
        np.testing.assert_array_equal(dataset.steps.state[step], state_of(episode, frame))
        np.testing.assert_array_equal(dataset.steps.action[step], action_of(episode, frame))
        for camera in range(2):
            shown = decode_image(dataset.encoded_image(step, f"cam_{camera}"), (24, 24, 3))
            np.testing.assert_allclose(shown, image_of(SPEC, camera, episode, frame), atol=2)


def test_refresh_of_an_unchanged_dataset_is_cheap(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 3))
    dataset = ReplayDataset(tmp_path)
    started = time.process_time()
    assert not any(dataset.refresh() for _ in range(100))
    assert time.process_time() - started < 0.1
    assert dataset.revision == 1


def test_a_late_label_reaches_the_reader(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    for number in range(2):
        writer.append(make_episode(SPEC, number, 3, outcome=Outcome.UNLABELLED))
    dataset = ReplayDataset(tmp_path)
    before = bytes(dataset.encoded_image(1, "cam_0"))

    writer.relabel("a-1-0", label(Outcome.SUCCESS))

    assert dataset.refresh()
    assert dataset.episodes.outcome.tolist() == ["success", "unlabelled"]
    assert bytes(dataset.encoded_image(1, "cam_0")) == before


def test_images_are_read_in_place(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 3))
    dataset = ReplayDataset(tmp_path)
    shown = dataset.encoded_image(2, "cam_1")
    content = DatasetLayout(tmp_path).data_file(0).read_bytes()
    assert type(shown.obj).__name__ == "mmap"
    assert content.count(bytes(shown)) == 1


def test_more_files_than_stay_mapped_are_read(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    for number in range(5):
        writer.append(make_episode(SPEC, number, 2))
    dataset = ReplayDataset(tmp_path)
    dataset._images._max_mapped = 2
    for step in [*range(10), *range(10)]:
        shown = decode_image(dataset.encoded_image(step, "cam_0"), (24, 24, 3))
        np.testing.assert_allclose(shown, image_of(SPEC, 0, step // 2, step % 2), atol=2)
    assert len(dataset._images._mapped) == 2


def test_compressed_images_of_another_writer_are_read(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 3))
    path = DatasetLayout(tmp_path).data_file(0)
    pq.write_table(pq.ParquetFile(path).read(), path, compression="snappy", use_dictionary=True)
    dataset = ReplayDataset(tmp_path)
    shown = decode_image(dataset.encoded_image(2, "cam_0"), (24, 24, 3))
    np.testing.assert_allclose(shown, image_of(SPEC, 0, 0, 2), atol=2)


def test_a_dataset_without_rl_columns_is_read_as_demonstrations(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 3))
    path = DatasetLayout(tmp_path).data_file(0)
    table = pq.ParquetFile(path).read()
    dropped = [name for name in table.column_names if name.startswith("next.") or name in ("source", "policy_version")]
    pq.write_table(table.drop_columns(dropped), path)
    dataset = ReplayDataset(tmp_path)
    assert dataset.steps.reward.tolist() == [0.0] * 3
    assert set(dataset.steps.source.tolist()) == {Source.HUMAN}
    assert not dataset.steps.is_terminal.any()


def test_missing_metadata_is_an_error_that_names_the_tool(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    writer.append(make_episode(SPEC, 0, 3))
    DatasetLayout(tmp_path).metadata_file(0).unlink()
    with pytest.raises(DatasetError, match=r"tools\.replay verify"):
        ReplayDataset(tmp_path)


def test_a_reader_may_look_at_any_moment_of_a_write(tmp_path: Path) -> None:
    datasets: list[ReplayDataset] = []
    info = DatasetLayout(tmp_path).info

    def look(_stage: str) -> None:
        for dataset in datasets:
            # As if an earlier episode had just been counted: the reader looks, and finds half of this one.
            info.touch()
            dataset.refresh()

    writer = DatasetWriter(tmp_path, SPEC, reached=look)
    writer.append(make_episode(SPEC, 0, 3))
    datasets.append(ReplayDataset(tmp_path))
    for number in range(1, 4):
        writer.append(make_episode(SPEC, number, 3))
        assert datasets[0].num_episodes == number + 1
