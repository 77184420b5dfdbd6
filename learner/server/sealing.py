"""Moves closed episodes from the journal into the dataset, and late labels after them.

Idempotent: an episode is written, then marked in the journal. After a crash between the two, the writer recognises the
episode by its id and only the mark is made.
"""

import logging
import threading
import time

from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import HiorsError
from serl_launcher.journal import Journal

logger = logging.getLogger(__name__)

RETRY_S = 30.0
"""Pause before an episode that could not be sealed is tried again."""


class Sealer:
    """Seals what the journal holds; one per dataset, in one thread at a time."""

    def __init__(self, journal: Journal, writer: DatasetWriter, *, period_s: float = 0.2) -> None:
        """Looks for closed episodes every `period_s` seconds while `run` runs."""
        self._journal = journal
        self._writer = writer
        self._period_s = period_s
        self._retry_at: dict[str, float] = {}

    @property
    def num_failing(self) -> int:
        """Episodes and labels that could not be written and are tried again later; they stay in the journal."""
        return len(self._retry_at)

    def run_once(self) -> int:
        """Seals every closed episode and applies every late label; returns how many of both were done.

        What cannot be written stays in the journal and is logged; the others are not held up.
        """
        num_done = sum(self._attempt(episode_id) for episode_id in self._journal.closed_episodes())
        for episode_id, label in self._journal.pending_labels():
            if not self._is_due(episode_id):
                continue
            try:
                self._writer.relabel(episode_id, label)
                self._journal.mark_labelled(episode_id, label)
                num_done += 1
            except (HiorsError, OSError) as exc:
                self._put_off(episode_id, exc)
        return num_done

    def run(self, stop: threading.Event) -> None:
        """Seals until `stop` is set, then once more so that nothing closed is left behind."""
        while not stop.is_set():
            self.run_once()
            stop.wait(self._period_s)
        self._retry_at.clear()
        self.run_once()

    def _attempt(self, episode_id: str) -> bool:
        """Seals one episode; returns whether it is sealed now."""
        if not self._is_due(episode_id):
            return False
        try:
            started = time.perf_counter()
            record = self._journal.read_episode(episode_id)
            index = self._writer.append(record)
            self._journal.mark_sealed(episode_id, index)
        except (HiorsError, OSError) as exc:
            self._put_off(episode_id, exc)
            return False
        self._retry_at.pop(episode_id, None)
        logger.debug(
            "Sealed %s as episode %d: %d steps, %s, %.0f ms.",
            episode_id,
            index,
            len(record.steps),
            record.outcome,
            1e3 * (time.perf_counter() - started),
        )
        return True

    def _is_due(self, episode_id: str) -> bool:
        return time.monotonic() >= self._retry_at.get(episode_id, 0.0)

    def _put_off(self, episode_id: str, reason: Exception) -> None:
        self._retry_at[episode_id] = time.monotonic() + RETRY_S
        logger.error(
            "Episode %s cannot be written to the dataset, its steps stay in the journal; next try in %.0f s: %s",
            episode_id,
            RETRY_S,
            reason,
        )
