"""Moves closed episodes from the journal into the dataset, and late labels after them.

Idempotent: episodes are written, then marked in the journal. After a crash between the two, the writer recognises an
episode by its id and only the mark is made. Episodes enter the dataset in the order in which they closed: a full disk
holds up all of them, a damaged episode only itself.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pyarrow as pa

from serl_launcher import failpoints
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError, HiorsError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.journal import Journal
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

RETRY_S = 30.0
"""Pause before an episode that does not fit the dataset is tried again; doubles up to LONGEST_RETRY_S."""
LONGEST_RETRY_S = 3600.0
FULL_DISK_RETRY_S = 1.0
"""Pause of all sealing after the disk refused something; doubles up to RETRY_S while it goes on refusing."""


_MARKED_AT_ONCE = 8
"""Episodes that one transaction of the journal marks as sealed: each is a sync that new events wait for."""

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


class _DiskRefused(Exception):
    """Not the episode is wrong, but the disk; raised from the error that says why."""


class Sealer:
    """Seals what the journal holds; one per dataset, in one thread at a time."""

    def __init__(self, journal: Journal, writer: DatasetWriter, *, period_s: float = 0.2) -> None:
        """Looks for closed episodes every `period_s` seconds while `run` runs."""
        self._journal = journal
        self._writer = writer
        self._period_s = period_s
        self._retry_at: dict[str, float] = {}
        self._pause_s: dict[str, float] = {}
        self._absent: set[str] = set()
        self._unmarked: dict[str, int] = {}
        self._disk_retry_s = 0.0
        self._disk_pause_s = 0.0
        self._disk_error = ""

    @property
    def num_failing(self) -> int:
        """Episodes and labels that could not be written and are tried again later; they stay in the journal."""
        return len(self._retry_at)

    def run_once(self) -> int:
        """Seals every closed episode and applies every late label; returns how many of both were done.

        What cannot be written stays in the journal and is logged; the others are not held up.
        """
        if time.monotonic() < self._disk_retry_s:
            return 0
        num_done = 0
        try:
            for episode_id in self._journal.closed_episodes():
                num_done += self._attempt(episode_id, self._seal)
                if len(self._unmarked) >= _MARKED_AT_ONCE:
                    self._mark_sealed()
            self._mark_sealed()
            for episode_id, label in self._journal.pending_labels():
                if self._is_absent(episode_id):
                    continue
                num_done += self._attempt(episode_id, lambda each, label=label: self._label(each, label))
        except _DiskRefused as exc:
            self._note_disk(str(exc.__cause__))
        else:
            self._note_disk("")
        return num_done

    def run(self, stop: threading.Event) -> None:
        """Seals until `stop` is set, then once more so that nothing closed is left behind."""
        while not stop.is_set():
            self.run_once()
            stop.wait(self._period_s)
        self._retry_at.clear()
        self._disk_retry_s = 0.0
        self.run_once()

    def _attempt(self, episode_id: str, work: Callable[[str], None]) -> bool:
        """Does something for one episode; returns whether it is done. Raises _DiskRefused where nothing can be."""
        if not self._is_due(episode_id):
            return False
        try:
            work(episode_id)
        except Exception as exc:  # Whatever is wrong with one episode must not end the sealing of all others.
            if _is_of_disk(exc) or _is_of_disk(exc.__cause__):
                raise _DiskRefused from exc
            self._put_off(episode_id, exc)
            return False
        self._retry_at.pop(episode_id, None)
        self._pause_s.pop(episode_id, None)
        return True

    def _seal(self, episode_id: str) -> None:
        started = time.perf_counter()
        record = self._journal.read_episode(episode_id)
        index = self._writer.append(record)
        failpoints.reached("sealed")
        self._unmarked[episode_id] = index
        duration_ms = 1e3 * (time.perf_counter() - started)
        logger.debug(
            "Sealed %s as episode %d: %d steps, %s, %.0f ms.",
            episode_id, index, len(record.steps), record.outcome, duration_ms,
        )  # fmt: skip

    def _mark_sealed(self) -> None:
        """Tells the journal what the dataset has; after a crash before that, the dataset recognises them."""
        if not self._unmarked:
            return
        try:
            self._journal.mark_sealed(self._unmarked)
        except DatasetError as exc:
            raise _DiskRefused from exc
        failpoints.reached("seal marked")
        self._unmarked.clear()

    def _label(self, episode_id: str, label: EpisodeLabelled) -> None:
        self._writer.relabel(episode_id, label)
        failpoints.reached("labelled")
        self._journal.mark_labelled(episode_id, label)
        failpoints.reached("label marked")

    def _is_absent(self, episode_id: str) -> bool:
        """Returns whether somebody took a labelled episode out of the dataset, and says so once.

        The label stays in the journal, for the dataset may be put back; the next process looks again.
        """
        if episode_id not in self._absent and self._writer.index_of(episode_id) is None:
            self._absent.add(episode_id)
            logger.warning("Episode %s was labelled, but is not in the dataset any more (pruned?).", episode_id)
        return episode_id in self._absent

    def _note_disk(self, error: str) -> None:
        """Pauses all sealing while the disk refuses; says so once when it begins and once when it is over."""
        if error:
            self._disk_pause_s = min(RETRY_S, 2 * self._disk_pause_s if self._disk_error else FULL_DISK_RETRY_S)
            self._disk_retry_s = time.monotonic() + self._disk_pause_s
            if not self._disk_error:
                logger.error("The dataset cannot be written: %s. Free disk space; steps stay in the journal.", error)
        elif self._disk_error:
            logger.info("The dataset can be written again.")
        self._disk_error = error

    def _is_due(self, episode_id: str) -> bool:
        return time.monotonic() >= self._retry_at.get(episode_id, 0.0)

    def _put_off(self, episode_id: str, reason: Exception) -> None:
        pause_s = min(LONGEST_RETRY_S, 2 * self._pause_s.get(episode_id, RETRY_S / 2))
        self._pause_s[episode_id] = pause_s
        self._retry_at[episode_id] = time.monotonic() + pause_s
        logger.error(
            "Episode %s cannot be written to the dataset, its steps stay in the journal; next try in %.0f s: %r",
            episode_id, pause_s, reason,
            exc_info=None if isinstance(reason, HiorsError) else reason,
        )  # fmt: skip


def warm_up() -> None:
    """Makes pyarrow import what it imports with its first array: over a second in which no robot should wait."""
    pa.array([b""], pa.binary())


def open_writer(root: Path, spec: RobotSpec, stop: threading.Event) -> DatasetWriter | None:
    """Returns the writer of a dataset, which repairs it first; waits while the disk is full, None when told to stop."""
    has_complained = False
    while True:
        try:
            return DatasetWriter(root, spec, reached=lambda stage: failpoints.reached(f"seal {stage}"))
        except OSError as exc:
            if not _is_of_disk(exc):
                raise
            if not has_complained:
                logger.error("Dataset %s cannot be opened: %s. Free disk space; steps stay in the journal.", root, exc)
            has_complained = True
        if stop.wait(FULL_DISK_RETRY_S):
            return None


def _is_of_disk(error: BaseException | None) -> bool:
    return isinstance(error, lmdb.Error) or (isinstance(error, OSError) and error.errno in _DISK_ERRORS)
