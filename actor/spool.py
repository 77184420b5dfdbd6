"""The spool of an actor: what it recorded and the learner has not committed yet, on disk.

Sequence numbers begin at 1 and go on across restarts; each opening of the spool is a new epoch, which shuts out what
is still running of the one before. A returned `append` survives the death of the process. It does not wait for the
disk: `sync` does, which the client calls before it sends, so that the learner never knows more than this disk. A power
cut may cost everything that waits: without a sync per commit LMDB keeps its store whole only on a disk that keeps the
order of writes, and a sync lasts until the next append. What is damaged then is set aside.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import lmdb

from actor.recent_events import RecentEvents
from serl_launcher import failpoints
from serl_launcher.errors import DatasetError, SessionFenced, SpoolFull
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, Event, StepRecorded, encode_event
from serl_launcher.storage import DirectoryLock, key_to_number, number_to_key, open_store

logger = logging.getLogger(__name__)

_TABLES = ("meta", "events", "open")
_SPARE_BYTES = 256 * 1024**2
_DELETED_AT_ONCE = 1024
_DISK_ERRORS = (lmdb.Error, lmdb.DiskError, lmdb.MapFullError, lmdb.MemoryError)
"""What LMDB raises where the system refuses something; every other class of its errors means damage."""


class Spool:
    """LMDB store of one actor on one machine. Its methods may be called from any thread."""

    def __init__(self, path: Path, *, max_bytes: int, when_full: str = "pause") -> None:
        """Opens or makes the spool in the directory `path` and begins a new epoch.

        Args:
            path: Directory of the spool.
            max_bytes: Recorded bytes that may wait.
            when_full: `pause`: an episode under way is still recorded to its end, up to twice the limit; none is
                begun. `refuse`: every step is refused.

        Raises:
            SessionFenced: Another living process uses the spool.
            SpoolFull: The disk is full, so that the new epoch cannot be noted.
        """
        self.path = path
        self.max_bytes = max_bytes
        self._hard_bytes = 2 * max_bytes if when_full == "pause" else max_bytes
        self._lock = DirectoryLock(path, error=SessionFenced)
        self._changed = threading.Condition()
        self._listener: Callable[[], None] | None = None
        self._is_closed = False
        self._recent = RecentEvents()
        self.num_refused = 0
        """Events refused because the spool was full."""
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Forces everything to disk and closes; may be called twice. Nothing else may be called afterwards."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._listener = None
        self._store.sync(True)  # noqa: FBT003 - The binding takes it by position only.
        self._store.close()
        self._lock.release()

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event ever appended; 0 before the first."""
        return self._last_seq

    @property
    def acknowledged_seq(self) -> int:
        """All events up to this number are committed by the learner and deleted here."""
        return self._acknowledged_seq

    @property
    def num_pending(self) -> int:
        """Events that are not acknowledged."""
        return self._last_seq - self._acknowledged_seq

    @property
    def pending_bytes(self) -> int:
        """Bytes of the events that are not acknowledged."""
        return self._pending_bytes

    @property
    def is_full(self) -> bool:
        """Whether no further episode should begin."""
        return self._pending_bytes >= self.max_bytes

    def wait_for_room(self, timeout_s: float) -> bool:
        """Waits until another episode may begin; returns whether it may."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.is_full, timeout_s)

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Waits until everything is acknowledged; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.num_pending == 0, timeout_s)

    def set_listener(self, listener: Callable[[], None] | None) -> None:
        """Sets what is called after each append, in the appending thread; it must be quick."""
        self._listener = listener

    def append(self, event: Event) -> int:
        """Stores the next event; returns its sequence number. It survives the death of this process.

        Raises:
            SpoolFull: The limit is reached, or the disk is full. Nothing of the event is stored. The end of an episode
                and labels are refused only by a full disk.
            DatasetError: The spool cannot be used any more; start the actor again.
            ValueError: The event is out of order in its episode.
        """
        encoded = encode_event(event)
        with self._changed:
            self._check_room(event, len(encoded))
            seq = self._last_seq + 1
            try:
                with self._store.begin(write=True) as transaction:
                    self._track_episode(transaction, event)
                    transaction.put(number_to_key(seq), encoded, db=self._db["events"], append=True)
            except lmdb.Error as exc:
                self.num_refused += 1
                raise _refused(
                    exc, f"Expected to store an event of {len(encoded)} bytes in {self.path}, where {self.num_pending} "
                    "events wait for the learner",
                ) from exc  # fmt: skip
            self._last_seq = seq
            self._pending_bytes += len(encoded)
            self._recent.add(seq, encoded)
        failpoints.reached("spool appended")
        if self._listener is not None:
            self._listener()
        return seq

    def pending(self, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Returns (sequence, event) after `after_seq` in order; at least one where there is one."""
        with self._changed:
            recent = self._recent.after(after_seq, max_events, max_bytes)
        return recent or self._read(after_seq, max_events, max_bytes)

    def _read(self, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        num_bytes = 0
        with self._store.begin() as transaction, transaction.cursor(db=self._db["events"]) as cursor:
            has_more = cursor.set_range(number_to_key(after_seq + 1))
            while has_more and len(found) < max_events:
                encoded = cursor.value()
                num_bytes += len(encoded)
                if found and num_bytes > max_bytes:
                    break
                found.append((key_to_number(cursor.key()), encoded))
                has_more = cursor.next()
        return found

    def acknowledge(self, seq: int) -> None:
        """Deletes the events up to `seq`, which the learner has committed.

        Raises:
            SpoolFull: The disk is so full that nothing can be deleted either; the learner will be asked again.
        """
        if seq > self._last_seq:
            raise ValueError(f"Expected an acknowledgement up to {self._last_seq}, got {seq}.")
        while self._acknowledged_seq < seq:
            try:
                self._delete_up_to(min(seq, self._acknowledged_seq + _DELETED_AT_ONCE))
            except lmdb.Error as exc:
                raise _refused(exc, f"Expected to delete delivered events in {self.path}") from exc

    def open_episodes(self) -> list[tuple[str, int]]:
        """Returns (episode id, number of steps) of the episodes without an end, oldest first."""
        with self._store.begin() as transaction, transaction.cursor(db=self._db["open"]) as entries:
            found = [(key_to_number(value[:8]), bytes(key).decode(), key_to_number(value)) for key, value in entries]
        return [(episode_id, num_steps) for _, episode_id, num_steps in sorted(found)]

    def sync(self) -> None:
        """Forces everything to disk; appends go on meanwhile."""
        if not self._is_closed:
            self._store.sync(True)  # noqa: FBT003 - The binding takes it by position only.
            failpoints.reached("spool synced")

    def _open(self) -> None:
        """Opens the store and begins an epoch; a damaged store is set aside for an empty one."""
        try:
            self._open_whole()
        except DatasetError as exc:
            aside = self.path / f"damaged-{time.time_ns()}"
            (self.path / "events").rename(aside)
            logger.error("%s It is set aside as %s; what it held did not reach the learner.", exc, aside)
            self._open_whole()

    def _open_whole(self) -> None:
        """Raises DatasetError where any page is damaged: every one is looked at, for a spool holds only what waits."""
        map_bytes = 2 * self._hard_bytes + _SPARE_BYTES
        self._store = open_store(self.path / "events", map_bytes=map_bytes, num_databases=len(_TABLES), is_synced=False)
        try:
            self._db = {name: self._store.open_db(name.encode()) for name in _TABLES}
            self._begin_epoch()
            self.open_episodes()
        except lmdb.Error as exc:
            self._store.close()
            if type(exc) in _DISK_ERRORS:
                raise _refused(exc, f"Expected to open the spool {self.path} for writing") from exc
            raise DatasetError(f"The spool {self.path} is damaged: {exc}.") from exc

    def _begin_epoch(self) -> None:
        with self._store.begin(write=True) as transaction:
            meta = transaction.cursor(db=self._db["meta"])
            epoch = key_to_number(meta.get(b"epoch", number_to_key(0)))
            # From the clock, so that a spool made anew on another disk counts as newer too; in milliseconds, for an
            # actor may be back within a second.
            self.epoch = max(epoch + 1, time.time_ns() // 1_000_000)
            self.spool_id = bytes(meta.get(b"spool_id", uuid.uuid4().hex.encode())).decode()
            self._acknowledged_seq = key_to_number(meta.get(b"acknowledged_seq", number_to_key(0)))
            meta.close()
            transaction.put(b"epoch", number_to_key(self.epoch), db=self._db["meta"])
            transaction.put(b"spool_id", self.spool_id.encode(), db=self._db["meta"])
            self._last_seq = self._acknowledged_seq
            self._pending_bytes = 0
            with transaction.cursor(db=self._db["events"]) as events:
                for key, value in events:
                    self._last_seq = key_to_number(key)
                    self._pending_bytes += len(value)
        self._store.sync(True)  # noqa: FBT003 - The binding takes it by position only.

    def _check_room(self, event: Event, num_bytes: int) -> None:
        if isinstance(event, EpisodeEnded | EpisodeLabelled):
            return
        limit = self.max_bytes if isinstance(event, EpisodeStarted) else self._hard_bytes
        if self._pending_bytes + num_bytes > limit:
            self.num_refused += 1
            raise SpoolFull(
                f"Expected room for {num_bytes} bytes in {self.path}, but {self._pending_bytes} of {limit} bytes wait "
                "for the learner. Bring the learner back, or raise transport.spool_max_bytes."
            )

    def _track_episode(self, transaction: lmdb.Transaction, event: Event) -> None:
        """Keeps count of the steps of open episodes; refuses what the learner would refuse."""
        if isinstance(event, EpisodeLabelled):
            return
        key = event.episode_id.encode()
        found = transaction.get(key, db=self._db["open"])
        if isinstance(event, EpisodeStarted):
            if found is not None:
                raise ValueError(f"Expected a new episode, got {event.episode_id!r}, which is open.")
            transaction.put(key, number_to_key(self._last_seq + 1, 0), db=self._db["open"])
            return
        if found is None:
            raise ValueError(f"Expected an open episode, got {event.episode_id!r}. Append EpisodeStarted first.")
        num_steps = key_to_number(found)
        if isinstance(event, StepRecorded):
            _check_number(event.step, num_steps, event.episode_id)
            transaction.put(key, bytes(found[:8]) + number_to_key(num_steps + 1), db=self._db["open"])
        else:
            _check_number(event.num_steps, num_steps, event.episode_id)
            transaction.delete(key, db=self._db["open"])

    def _delete_up_to(self, seq: int) -> None:
        with self._changed:
            num_bytes = 0
            with self._store.begin(write=True) as transaction:
                with transaction.cursor(db=self._db["events"]) as cursor:
                    found = cursor.first()
                    while found and key_to_number(cursor.key()) <= seq:
                        num_bytes += len(cursor.value())
                        found = cursor.delete()
                transaction.put(b"acknowledged_seq", number_to_key(seq), db=self._db["meta"])
            failpoints.reached("spool acknowledged")
            self._acknowledged_seq = seq
            self._pending_bytes -= num_bytes
            self._recent.forget(seq)
            self._changed.notify_all()


def _refused(error: lmdb.Error, what: str) -> SpoolFull | DatasetError:
    if type(error) in _DISK_ERRORS:
        return SpoolFull(f"{what}: {error}. Free disk space.")
    return DatasetError(f"{what}, but it is damaged: {error}. Start the actor again.")


def _check_number(got: int, want: int, episode_id: str) -> None:
    if got != want:
        raise ValueError(f"Episode {episode_id!r} has {want} steps so far, but the next event says {got}.")
