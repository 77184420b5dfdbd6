"""The tables of the journal and one transaction on them: what is stored under which key, and nothing of when.

meta      b"journal_id", b"spec", b"counts", b"released"
cursors   actor id                       -> Cursor of the spool that it uses
spools    hash of (actor id, spool id)   -> Cursor of a spool that it used before
episodes  episode id                     -> EpisodeEntry
events    (episode number, sequence)     -> the bytes the actor recorded
closed    close number                   -> episode id, until it is sealed
labels    episode id                     -> newest late label, until the dataset has it
"""

import hashlib
from typing import Literal

import lmdb
import msgspec

from serl_launcher.events import Event, StepRecorded, decode_event
from serl_launcher.storage import key_to_number, number_to_key

TABLES = ("meta", "cursors", "spools", "episodes", "closed", "events", "labels")

_SEALING_PART = 16
"""One part in so many of the largest size of the store is kept for sealing."""

Tables = dict[str, lmdb._Database]
Encoded = bytes | memoryview


class Cursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far one actor's stream is committed."""

    spool_id: str
    """Which spool the sequence numbers belong to; a new disk begins a new stream."""
    epoch: int
    last_seq: int
    first_seq: int
    """Sequence number before the first one this journal ever saw; above 0 where an earlier journal took the rest."""
    num_steps: int = 0
    num_episodes: int = 0


class EpisodeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What the journal knows about one episode, for ever."""

    number: int
    """Key of its events."""
    actor_id: str
    state: Literal["open", "closed", "sealed", "empty"]
    num_steps: int = 0
    close_number: int = -1
    episode_index: int = -1
    """Index in the replay dataset once sealed."""
    is_cut_off: bool = False
    """Whether it was closed because its actor came with another spool; the rest of it may still lie in the first."""


class JournalCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Totals over the life of the journal."""

    num_started: int = 0
    num_steps: int = 0
    num_episodes: int = 0
    """Closed episodes, sealed or not."""
    num_sealed_episodes: int = 0
    num_orphans: int = 0
    """Events that named an episode this journal never saw, and were not kept."""


class JournalTransaction:
    """All changes of one commit; they become visible and durable together. Used by one thread."""

    def __init__(self, transaction: lmdb.Transaction, tables: Tables, *, map_bytes: int) -> None:
        self._transaction = transaction
        self._db = tables
        self._map_bytes = map_bytes
        self.counts = counts_in(transaction, tables)
        self._counts_before = self.counts

    def cursor(self, actor_id: str) -> Cursor | None:
        """Returns how far that actor's stream is committed, None for an actor never seen."""
        found = self._transaction.get(actor_id.encode(), db=self._db["cursors"])
        return None if found is None else msgspec.msgpack.decode(found, type=Cursor)

    def put_cursor(self, actor_id: str, cursor: Cursor) -> None:
        """Replaces the cursor of an actor."""
        self._transaction.put(actor_id.encode(), msgspec.msgpack.encode(cursor), db=self._db["cursors"])

    def former_cursor(self, actor_id: str, spool_id: str) -> Cursor | None:
        """Returns how far a spool is committed that this actor used before another; None for one never put away."""
        found = self._transaction.get(_spool_key(actor_id, spool_id), db=self._db["spools"])
        return None if found is None else msgspec.msgpack.decode(found, type=Cursor)

    def put_away_cursor(self, actor_id: str, cursor: Cursor) -> None:
        """Keeps the cursor of a spool in whose place the actor uses another, for it may come back."""
        key = _spool_key(actor_id, cursor.spool_id)
        self._transaction.put(key, msgspec.msgpack.encode(cursor), db=self._db["spools"])

    def episode(self, episode_id: str) -> EpisodeEntry | None:
        """Returns the entry of an episode, None for an unknown one."""
        return entry_in(self._transaction, self._db, episode_id)

    def open_episodes(self, actor_id: str) -> list[str]:
        """Returns the ids of the episodes of an actor that have no end yet."""
        found = []
        for key, value in self._transaction.cursor(db=self._db["episodes"]):
            entry = msgspec.msgpack.decode(value, type=EpisodeEntry)
            if entry.state == "open" and entry.actor_id == actor_id:
                found.append(bytes(key).decode())
        return found

    def last_step(self, entry: EpisodeEntry) -> tuple[StepRecorded, int] | None:
        """Returns the newest step of an episode under way and its sequence number, None where it has none."""
        with self._transaction.cursor(db=self._db["events"]) as cursor:
            found = cursor.prev() if cursor.set_range(number_to_key(entry.number + 1)) else cursor.last()
            if not found or cursor.key()[:8] != number_to_key(entry.number):
                return None
            event, seq = decode_event(cursor.value()), key_to_number(cursor.key())
            return (event, seq) if isinstance(event, StepRecorded) else None

    def start_episode(self, actor_id: str, seq: int, episode_id: str, encoded: Encoded) -> EpisodeEntry:
        """Opens an episode with its first event."""
        entry = EpisodeEntry(number=self.counts.num_started, actor_id=actor_id, state="open")
        self.counts = msgspec.structs.replace(self.counts, num_started=self.counts.num_started + 1)
        self.put_event(entry, seq, encoded)
        self.put_episode(episode_id, entry)
        return entry

    def put_event(self, entry: EpisodeEntry, seq: int, encoded: Encoded) -> None:
        """Stores one event of an episode."""
        self._transaction.put(number_to_key(entry.number, seq), encoded, db=self._db["events"])

    def put_episode(self, episode_id: str, entry: EpisodeEntry) -> None:
        """Replaces the entry of an episode."""
        self._transaction.put(episode_id.encode(), msgspec.msgpack.encode(entry), db=self._db["episodes"])

    def close_episode(self, episode_id: str, entry: EpisodeEntry) -> None:
        """Ends an episode whose last event is stored; one without steps has nothing to seal."""
        if not entry.num_steps:
            self.drop_episode(episode_id, entry)
            return
        close_number = self.counts.num_episodes
        self.counts = msgspec.structs.replace(self.counts, num_episodes=close_number + 1)
        self.put_episode(episode_id, msgspec.structs.replace(entry, state="closed", close_number=close_number))
        self._transaction.put(number_to_key(close_number), episode_id.encode(), db=self._db["closed"])

    def drop_episode(self, episode_id: str, entry: EpisodeEntry) -> None:
        """Closes an episode without steps: nothing of it goes to the dataset, its id stays known."""
        self.delete_events(entry)
        self.drop_label(episode_id)
        self.put_episode(episode_id, msgspec.structs.replace(entry, state="empty"))

    def seal_episode(self, episode_id: str, entry: EpisodeEntry, episode_index: int) -> None:
        """Deletes the events of a closed episode that is in the dataset, and remembers where."""
        self.delete_events(entry)
        self._transaction.delete(number_to_key(entry.close_number), db=self._db["closed"])
        self.counts = msgspec.structs.replace(self.counts, num_sealed_episodes=self.counts.num_sealed_episodes + 1)
        self.put_episode(episode_id, msgspec.structs.replace(entry, state="sealed", episode_index=episode_index))

    def delete_events(self, entry: EpisodeEntry) -> None:
        """Deletes every event of an episode."""
        prefix = number_to_key(entry.number)
        with self._transaction.cursor(db=self._db["events"]) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key()[:8] == prefix:
                found = cursor.delete()

    def put_label(self, episode_id: str, entry: EpisodeEntry, encoded: Encoded) -> None:
        """Replaces the newest late label of an episode; one without steps needs none."""
        if entry.state != "empty":
            self._transaction.put(episode_id.encode(), encoded, db=self._db["labels"])

    def drop_label(self, episode_id: str) -> None:
        """Forgets the late label of an episode, where there is one."""
        self._transaction.delete(episode_id.encode(), db=self._db["labels"])

    def count(self, *, steps: int = 0, orphans: int = 0) -> None:
        """Adds to the totals."""
        self.counts = msgspec.structs.replace(
            self.counts, num_steps=self.counts.num_steps + steps, num_orphans=self.counts.num_orphans + orphans
        )

    def used_bytes(self) -> int:
        """Returns what the tables occupy, with the changes so far."""
        num_bytes = 0
        for table in self._db.values():
            stat = self._transaction.stat(table)
            num_bytes += stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
        return num_bytes

    def require_room(self) -> None:
        """Keeps room to seal: that deletes events, but LMDB first copies every page that changes.

        Raises:
            lmdb.MapFullError: With these changes the store would be so full that it could not be emptied any more.
        """
        used_bytes = self.used_bytes()
        if used_bytes > self._map_bytes - self._map_bytes // _SEALING_PART:
            raise lmdb.MapFullError(
                f"{used_bytes / 2**20:.1f} of {self._map_bytes / 2**20:.1f} MiB are used, the rest is kept for sealing"
            )

    def put_counts(self) -> None:
        """Writes the totals where they changed; the journal calls it before the commit."""
        if self.counts != self._counts_before:
            self._transaction.put(b"counts", msgspec.msgpack.encode(self.counts), db=self._db["meta"])


def _spool_key(actor_id: str, spool_id: str) -> bytes:
    """Returns a key of fixed length: both ids together may be longer than LMDB allows."""
    return hashlib.sha256(msgspec.msgpack.encode((actor_id, spool_id))).digest()


def counts_in(transaction: lmdb.Transaction, tables: Tables) -> JournalCounts:
    """Returns the totals as committed."""
    found = transaction.get(b"counts", db=tables["meta"])
    return JournalCounts() if found is None else msgspec.msgpack.decode(found, type=JournalCounts)


def entry_in(transaction: lmdb.Transaction, tables: Tables, episode_id: str) -> EpisodeEntry | None:
    """Returns the entry of an episode, None for an unknown one."""
    found = transaction.get(episode_id.encode(), db=tables["episodes"])
    return None if found is None else msgspec.msgpack.decode(found, type=EpisodeEntry)


def events_in(transaction: lmdb.Transaction, tables: Tables, entry: EpisodeEntry) -> list[Event]:
    """Returns the events of an episode by sequence."""
    prefix = number_to_key(entry.number)
    events = []
    with transaction.cursor(db=tables["events"]) as cursor:
        found = cursor.set_range(prefix)
        while found and cursor.key()[:8] == prefix:
            events.append(decode_event(cursor.value()))
            found = cursor.next()
    return events
