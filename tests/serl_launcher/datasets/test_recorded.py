import pytest

from serl_launcher.datasets.recorded import read_recorded
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import make_episode, robot

JPEG, RAW = robot(size=16), robot(size=16, encoding="raw")


def test_an_episode_is_read_as_it_was_written(tmp_path):
    sources = [Source.POLICY, Source.HUMAN, Source.HUMAN, Source.POLICY]
    written = [
        make_episode(JPEG, 0, 5, end="truncated", outcome=Outcome.FAILURE, prompt="wait"),
        make_episode(JPEG, 1, 4, sources=sources),
        make_episode(JPEG, 2, 3, end="killed", outcome=Outcome.UNLABELLED),
    ]
    writer = DatasetWriter(tmp_path, JPEG)
    for record in written:
        writer.append(record)
    assert [read_recorded(tmp_path, number, JPEG) for number in range(3)] == written


def test_the_newest_label_is_read(tmp_path):
    writer = DatasetWriter(tmp_path, JPEG)
    writer.append(make_episode(JPEG, 0, 4))
    writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.FAILURE, "human", 9.0))
    read = read_recorded(tmp_path, 0, JPEG)
    assert (read.outcome, read.labelled_by, read.label_wall_time_s) == (Outcome.FAILURE, "human", 9.0)


def test_raw_pictures_come_back_as_png_and_are_stored_the_same_again(tmp_path):
    DatasetWriter(tmp_path / "one", RAW).append(make_episode(RAW, 0, 4))
    read = read_recorded(tmp_path / "one", 0, RAW)
    assert read.steps[0].observation.images["cam_0"].startswith(b"\x89PNG")
    DatasetWriter(tmp_path / "two", RAW).append(read)
    assert read_recorded(tmp_path / "two", 0, RAW) == read


def test_an_episode_that_is_not_there_is_named(tmp_path):
    DatasetWriter(tmp_path, JPEG).append(make_episode(JPEG, 0, 4))
    with pytest.raises(DatasetError, match="episode 3"):
        read_recorded(tmp_path, 3, JPEG)
