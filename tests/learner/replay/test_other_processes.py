"""Readers in other processes see a sealed episode the next time that they look."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, IterableDataset

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.recorded_episodes import image_of, make_episode, robot

SPEC = robot(size=8, cameras=1)


def look(dataset: ReplayDataset) -> tuple[int, str, int]:
    """Returns the number of episodes, the newest one's label and how bright its last picture is."""
    dataset.refresh()
    picture = dataset.image(dataset.num_steps - 1, "cam_0")
    return dataset.num_episodes, str(dataset.episodes.outcome[-1]), round(float(picture.mean()))


def read(root: Path, asked: Connection) -> None:
    dataset = ReplayDataset(root)
    while asked.recv():
        asked.send(look(dataset))


class Looks(IterableDataset):
    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __iter__(self) -> Iterator[tuple[int, str, int]]:
        dataset = ReplayDataset(self._root)
        while True:
            yield look(dataset)


def brightness(number: int) -> int:
    return round(float(image_of(SPEC, 0, number, 1).mean()))


def test_another_process_sees_a_sealed_and_a_relabelled_episode_at_once(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    writer.append(make_episode(SPEC, 0, 2))
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=read, args=(tmp_path, theirs), daemon=True)
    process.start()
    for number in range(1, 4):
        writer.append(make_episode(SPEC, number, 2))
        ours.send(True)
        assert ours.recv() == pytest.approx((number + 1, "success", brightness(number)), abs=2)
        writer.relabel(f"a-1-{number}", EpisodeLabelled(f"a-1-{number}", Outcome.FAILURE, "human", 1.0))
        ours.send(True)
        assert ours.recv()[:2] == (number + 1, "failure")
    ours.send(False)
    process.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_of_a_data_loader_sees_a_sealed_episode(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    writer.append(make_episode(SPEC, 0, 2))
    looks = iter(DataLoader(Looks(tmp_path), batch_size=None, num_workers=1, prefetch_factor=1))
    next(looks)
    for number in range(1, 4):
        writer.append(make_episode(SPEC, number, 2))
        next(looks)  # The worker looked ahead.
        num_episodes, _, shade = next(looks)
        assert num_episodes == number + 1
        np.testing.assert_allclose(shade, brightness(number), atol=2)
