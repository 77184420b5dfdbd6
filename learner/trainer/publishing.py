"""Publishes policies from a thread of its own: the trainer only takes a snapshot of the weights.

Of publications that wait, only the newest is written: nobody acts on one that is overtaken.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from serl_launcher.publication import FileEntry, Publisher

logger = logging.getLogger(__name__)


class Snapshot(Protocol):
    """A policy as it was at one moment."""

    def __call__(self, directory: Path) -> Mapping[str, FileEntry]:
        """Writes it into an existing directory; returns the checksums that are known already."""
        ...

    def release(self) -> None:
        """Frees its memory; called once, when it is written or overtaken."""
        ...


@runtime_checkable
class Snapshotting(Protocol):
    """An algorithm whose policy can be written while it trains on."""

    def snapshot_policy(self) -> Snapshot:
        """Returns the policy to act with as it is now."""
        ...


class BackgroundPublisher:
    """Hands snapshots to one writing thread, which starts with the first."""

    def __init__(self, publisher: Publisher) -> None:
        """Publishes through `publisher`, which nobody else uses meanwhile."""
        self._publisher = publisher
        self._changed = threading.Condition()
        self._waiting: tuple[Snapshot, int] | None = None
        self._is_writing = False
        self._is_closing = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.num_overtaken = 0
        """Publications that were left out because a newer one came while they waited."""
        self.newest_version = -1
        """Newest version that is completely on disk, of those published here."""

    def publish(self, take_snapshot: Callable[[], Snapshot], version: int) -> None:
        """Takes a snapshot now and has it written soon; never waits for the disk.

        Raises:
            OSError, CheckpointError: What an earlier publication failed with.
        """
        with self._changed:
            self._raise_failure()
            # Gives its memory back first: the new snapshot may need it, and must not wait for the one being written.
            if self._waiting is not None:
                self._waiting[0].release()
                self._waiting = None
                self.num_overtaken += 1
        snapshot = take_snapshot()
        with self._changed:
            self._waiting = (snapshot, version)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="publishing", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self) -> None:
        """Returns when everything is on disk; raises what failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not (self._waiting or self._is_writing))
            self._raise_failure()

    def close(self) -> None:
        """Writes what waits, ends the thread, raises what failed."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._changed:
            self._raise_failure()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            snapshot, version = taken
            try:
                self._write(snapshot, version)
            except BaseException as exc:  # The trainer's thread raises it.
                self._end(failure=exc)
                return
            finally:
                snapshot.release()
            self._end(version=version)

    def _take(self) -> tuple[Snapshot, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._is_closing)
            taken, self._waiting = self._waiting, None
            self._is_writing = taken is not None
            return taken

    def _end(self, *, version: int | None = None, failure: BaseException | None = None) -> None:
        with self._changed:
            self._is_writing = False
            self._failure = failure
            if version is not None:
                self.newest_version = version
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._thread = None
            raise failure

    def _write(self, snapshot: Snapshot, version: int) -> None:
        started = time.monotonic()
        self._publisher.publish(snapshot, version)
        logger.debug("Published policy %d in %.0f ms, beside training.", version, 1e3 * (time.monotonic() - started))
