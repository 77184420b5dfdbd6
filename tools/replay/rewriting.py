"""Replaces a dataset by a rewritten one in two renames; the old one is kept beside it.

    (NAME) --copy--> (NAME, .NAME.new) --rename--> (NAME.before-..., .NAME.new) --rename--> (NAME, NAME.before-...)

A crash before the renames leaves the old dataset and an unfinished copy, between them a finished copy that
`finish_swap` puts in place.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.copying import copy_episodes
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.errors import DatasetError
from serl_launcher.files import sync_directory
from serl_launcher.storage import DirectoryLock


@contextmanager
def no_learner(root: Path) -> Iterator[None]:
    """Keeps learners from starting that write to the replay in `root`, where it lies in a run.

    Raises:
        DatasetError: A learner runs already.
    """
    journal = root.parent / "journal"
    if not journal.exists():
        yield
        return
    try:
        lock = DirectoryLock(journal, error=DatasetError)
    except DatasetError as exc:
        raise DatasetError(f"Expected nobody to write to {root}, but a learner uses {journal}. Stop it first.") from exc
    try:
        yield
    finally:
        lock.release()


@contextmanager
def no_writer(root: Path) -> Iterator[None]:
    """Keeps every other writer away from a dataset; raises DatasetError where there is one."""
    lock = DirectoryLock(root, error=DatasetError)
    try:
        yield
    finally:
        lock.release()


def unfinished_copy(root: Path) -> Path:
    """Returns where the copy of a dataset is made."""
    return root.with_name(f".{root.name}.new")


def rewrite(root: Path, episodes: Sequence[int], *, file_bytes: int, what: str) -> Path:
    """Replaces the dataset by one of the chosen episodes; returns where the old one lies now.

    Raises:
        DatasetError: A learner uses it, it is damaged, or the copy does not equal it.
    """
    with no_learner(root), no_writer(root):
        return _rewrite(root, episodes, file_bytes=file_bytes, what=what)


def _rewrite(root: Path, episodes: Sequence[int], *, file_bytes: int, what: str) -> Path:
    copy = unfinished_copy(root)
    if copy.exists():
        shutil.rmtree(copy)  # Of an earlier attempt that was cut off; the dataset itself is untouched.
    copy_episodes(root, copy, episodes, file_bytes=file_bytes)
    _check_equal(ReplayDataset(root), ReplayDataset(copy), episodes)
    kept = root.with_name(f"{root.name}.before-{what}-{time.strftime('%Y%m%d-%H%M%S')}")
    root.rename(kept)
    copy.rename(root)
    sync_directory(root.parent)
    return kept


def finish_swap(root: Path) -> bool:
    """Puts a finished copy in place where a crash came between the two renames; returns whether it did."""
    copy = unfinished_copy(root)
    if root.exists() or not DatasetLayout(copy).info.exists():
        return False
    copy.rename(root)
    sync_directory(root.parent)
    return True


def _check_equal(old: ReplayDataset, new: ReplayDataset, episodes: Sequence[int]) -> None:
    for index, episode in enumerate(episodes):
        same = (old.episode_id(episode), old.episodes.length[episode], old.episodes.outcome[episode]) == (
            new.episode_id(index),
            new.episodes.length[index],
            new.episodes.outcome[index],
        )
        places = (old.episodes.first_step[episode], new.episodes.first_step[index])
        length = int(old.episodes.length[episode])
        same &= bool(
            (old.steps.action[places[0] : places[0] + length] == new.steps.action[places[1] : places[1] + length]).all()
        )
        for camera in old.camera_names:
            last = length - 1
            same &= bytes(old.encoded_image(places[0] + last, camera)) == bytes(
                new.encoded_image(places[1] + last, camera)
            )
        if not same:
            raise DatasetError(f"The copy of episode {episode} in {new.root} is not equal; {old.root} is unchanged.")
