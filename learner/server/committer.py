"""Commits hellos and events of all actors in groups, in a thread of its own: no answer waits for the disk."""

import logging
import threading
from collections.abc import Callable, Sequence

import lmdb

from learner.server.ingest import Committed, Ingest, StepBatch
from learner.server.refusals import storage_refused
from serl_launcher.transport.messages import Hello

logger = logging.getLogger(__name__)

MAX_GROUP_BYTES = 64 * 1024 * 1024

Done = Callable[[Committed], None]
"""Takes what became of one hello or batch. Called from the committing thread."""


class Committer:
    """Whatever arrives while one group is written forms the next; everything is committed in the order of arrival."""

    def __init__(self, ingest: Ingest, *, is_grouped: bool) -> None:
        """Prepares to commit.

        Args:
            ingest: Where batches go.
            is_grouped: Whether batches share a transaction; else each has its own.
        """
        self._ingest = ingest
        self._max_batches = 1024 if is_grouped else 1
        self._waiting: list[tuple[StepBatch | Hello, Done]] = []
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self.storage_error: str = ""
        """Why the last group could not be written; empty while writing works."""
        self.failure: Exception | None = None
        """What ended the thread, where it was not asked to end."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commits what waits, then ends the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, request: StepBatch | Hello, done: Done) -> None:
        """Queues a hello or a batch; one hello per connection and the credits of a session bound how many can wait."""
        with self._changed:
            self._waiting.append((request, done))
            self._changed.notify()

    def _work(self) -> None:
        try:
            while group := self._next_group():
                results = self._commit([request for request, _ in group])
                for (_, done), result in zip(group, results, strict=True):
                    done(result)
        except Exception as exc:  # The gateway sees `failure` and ends the process; nothing goes on unwritten.
            logger.exception("The journal cannot be written.")
            self.failure = exc

    def _next_group(self) -> list[tuple[StepBatch | Hello, Done]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopping)
            num_bytes = count = 0
            for request, _ in self._waiting[: self._max_batches]:
                num_bytes += 0 if isinstance(request, Hello) else sum(map(len, request.events))
                if count and num_bytes > MAX_GROUP_BYTES:
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            return group

    def _commit(self, requests: Sequence[StepBatch | Hello]) -> list[Committed]:
        try:
            results = self._ingest.commit(requests)
        except lmdb.Error as exc:
            refused = storage_refused(exc)
            if not self.storage_error:
                logger.error("Cannot write the journal: %s. Free disk space; actors keep their steps meanwhile.", exc)
            self.storage_error = str(exc)
            return [Committed(error=refused) for _ in requests]
        if self.storage_error and any(result.has_written for result in results):
            logger.info("The journal can be written again.")
            self.storage_error = ""
        return results
