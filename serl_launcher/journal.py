"""The journal of the learner: what actors sent and the replay dataset does not hold yet.

An episode moves through three states; each arrow is one LMDB transaction:

    (unknown) --EpisodeStarted--> open --EpisodeEnded--> closed --mark_sealed--> sealed

The events of an episode are deleted when it is sealed; its entry stays, so that late labels find it and a repeated
event is recognised. A committed transaction survives the death of any process, and (unless `durability` is `os`) a
power cut.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb
import msgspec

from serl_launcher.errors import DatasetError
from serl_launcher.events import (
    EncodedObservation,
    EpisodeEnded,
    EpisodeLabelled,
    EpisodeStarted,
    Event,
    StepRecorded,
    decode_event,
    encode_event,
)
from serl_launcher.journal_tables import (
    TABLES,
    Cursor,
    JournalCounts,
    JournalTransaction,
    Tables,
    counts_in,
    entry_in,
    events_in,
)
from serl_launcher.specs import RobotSpec
from serl_launcher.storage import DirectoryLock, open_store
from serl_launcher.types import Outcome

_MAP_BYTES = 1024**4


@dataclass(kw_only=True, slots=True)
class EpisodeRecord:
    """One closed episode as it was recorded, with its newest label.

    Example:
        EpisodeRecord(actor_id="actor-0", episode_id="actor-0-3-17", prompt="put the red cube on the green plate",
                      seed=17, started_wall_time_s=1.7e9, steps=[...], final_observation=...,
                      outcome=Outcome.SUCCESS, labelled_by="human", label_wall_time_s=1.7e9)
    """

    actor_id: str
    episode_id: str
    prompt: str
    seed: int | None
    """Seed of the reset, where the environment has one."""
    started_wall_time_s: float
    steps: list[StepRecorded]
    """In order, numbered from 0 without gaps; may be empty for an aborted episode."""
    final_observation: EncodedObservation
    outcome: Outcome
    labelled_by: str
    label_wall_time_s: float
    """When the label in force was given."""


class Journal:
    """LMDB store with one writing process. Its methods may be called from any thread."""

    def __init__(self, path: Path, *, durability: str = "group") -> None:
        """Opens or makes the journal in the directory `path`.

        Raises:
            DatasetError: Another process uses it, the disk is full, or its files are damaged.
        """
        self.path = path
        self.durability = durability
        self._lock = DirectoryLock(path, error=DatasetError)
        try:
            self._store = open_store(
                path, map_bytes=_MAP_BYTES, num_databases=len(TABLES), is_synced=durability != "os"
            )
            self._map_bytes = self._store.info()["map_size"]
            self._db = self._open_tables()
            self.journal_id = self._make_journal_id()
        except lmdb.Error as exc:
            self._lock.release()
            raise DatasetError(
                f"The journal {path} cannot be opened: {exc}. Where the disk is full, free some; where a power cut has "
                "damaged it (transport.durability=os), move it away: what was not sealed is lost."
            ) from exc
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Forces everything to disk and closes the store; nothing may be called afterwards."""
        self._store.sync(True)  # noqa: FBT003 - The binding takes it by position only.
        self._store.close()
        self._lock.release()

    @contextmanager
    def transaction(self) -> Iterator[JournalTransaction]:
        """Commits all changes made inside at the end, or none where an exception leaves the block."""
        with self._store.begin(write=True) as transaction:
            changes = JournalTransaction(transaction, self._db, map_bytes=self._map_bytes)
            yield changes
            changes.put_counts()

    def spec(self) -> RobotSpec | None:
        """Returns the robot of this run, None before the first actor came."""
        with self._store.begin() as transaction:
            found = transaction.get(b"spec", db=self._db["meta"])
        return None if found is None else msgspec.msgpack.decode(found, type=RobotSpec)

    def put_spec(self, spec: RobotSpec) -> None:
        """Fixes the robot of this run."""
        with self._store.begin(write=True) as transaction:
            transaction.put(b"spec", msgspec.msgpack.encode(spec), db=self._db["meta"])

    def cursors(self) -> dict[str, Cursor]:
        """Returns the cursor of every actor ever seen."""
        with self._store.begin() as transaction, transaction.cursor(db=self._db["cursors"]) as entries:
            return {key.decode(): msgspec.msgpack.decode(value, type=Cursor) for key, value in entries}

    def counts(self) -> JournalCounts:
        """Returns the totals over the life of the journal."""
        with self._store.begin() as transaction:
            return counts_in(transaction, self._db)

    def closed_episodes(self) -> list[str]:
        """Returns the ids of closed episodes that are not sealed yet, in closing order."""
        with self._store.begin() as transaction, transaction.cursor(db=self._db["closed"]) as entries:
            return [value.decode() for _, value in entries]

    def read_episode(self, episode_id: str) -> EpisodeRecord:
        """Returns a closed episode with its newest label.

        Raises:
            DatasetError: The journal holds no closed episode of that id (any more).
        """
        with self._store.begin() as transaction:
            entry = entry_in(transaction, self._db, episode_id)
            if entry is None or entry.state != "closed":
                state = "unknown" if entry is None else entry.state
                raise DatasetError(f"Expected a closed episode {episode_id!r} in {self.path}, it is {state}.")
            events = events_in(transaction, self._db, entry)
            late = transaction.get(episode_id.encode(), db=self._db["labels"])
        label = None if late is None else decode_event(late)
        return _record_of(entry.actor_id, events, label if isinstance(label, EpisodeLabelled) else None)

    def mark_sealed(self, episode_indices: Mapping[str, int]) -> None:
        """Remembers where closed episodes lie in the dataset and deletes their events; again is harmless.

        All in one transaction, for commits of new events wait for it.

        A late label stays in `pending_labels`, also when `read_episode` showed it already: only the caller knows
        whether the dataset has it.

        Raises:
            DatasetError: There is no such closed episode, or the disk is full.
        """
        with self._reported(), self.transaction() as changes:
            used_bytes = changes.used_bytes()
            for episode_id, episode_index in episode_indices.items():
                entry = changes.episode(episode_id)
                if entry is None or entry.state == "open":
                    raise DatasetError(f"Expected a closed episode {episode_id!r} in {self.path} to seal, got {entry}.")
                if entry.state == "closed":
                    changes.seal_episode(episode_id, entry, episode_index)
        if used_bytes > self._map_bytes // 2:
            self._release_freed_pages()

    def pending_labels(self) -> list[tuple[str, EpisodeLabelled]]:
        """Returns the newest late label of each sealed episode that the dataset may not have yet."""
        with self._store.begin() as transaction, transaction.cursor(db=self._db["labels"]) as entries:
            found = []
            for key, value in entries:
                entry = entry_in(transaction, self._db, key.decode())
                label = decode_event(value)
                if entry is not None and entry.state == "sealed" and isinstance(label, EpisodeLabelled):
                    found.append((key.decode(), label))
            return found

    def mark_labelled(self, episode_id: str, label: EpisodeLabelled) -> None:
        """Forgets a late label that the dataset has; a newer one that came meanwhile stays."""
        with self._reported(), self._store.begin(write=True) as transaction:
            if transaction.get(episode_id.encode(), db=self._db["labels"]) == encode_event(label):
                transaction.delete(episode_id.encode(), db=self._db["labels"])

    def sealed_index(self, episode_id: str) -> int | None:
        """Returns the index of a sealed episode in the dataset, None for any other."""
        with self._store.begin() as transaction:
            entry = entry_in(transaction, self._db, episode_id)
        return entry.episode_index if entry is not None and entry.state == "sealed" else None

    def _release_freed_pages(self) -> None:
        """Commits something small: LMDB uses again what a transaction freed from the next but one on."""
        with self._reported(), self._store.begin(write=True) as transaction:
            transaction.put(b"released", transaction.id().to_bytes(8, "big"), db=self._db["meta"])

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as exc:
            raise DatasetError(f"The journal {self.path} cannot be written: {exc}. Free disk space.") from exc

    def _open_tables(self) -> Tables:
        """Makes the tables that a journal of an earlier version does not have."""
        return {name: self._store.open_db(name.encode()) for name in TABLES}

    def _make_journal_id(self) -> str:
        with self._store.begin(write=True) as transaction:
            found = transaction.get(b"journal_id", db=self._db["meta"])
            if found is None:
                found = uuid.uuid4().hex.encode()
                transaction.put(b"journal_id", found, db=self._db["meta"])
            return found.decode()


def _record_of(actor_id: str, events: list[Event], label: EpisodeLabelled | None) -> EpisodeRecord:
    started, *steps, ended = events
    if not isinstance(started, EpisodeStarted) or not isinstance(ended, EpisodeEnded):
        raise DatasetError(
            f"Expected an episode of {actor_id!r} from its start to its end, got {type(started).__name__} to "
            f"{type(ended).__name__}; the journal is damaged."
        )
    final = label or ended
    return EpisodeRecord(
        actor_id=actor_id,
        episode_id=started.episode_id,
        prompt=started.prompt,
        seed=started.seed,
        started_wall_time_s=started.wall_time_s,
        steps=[step for step in steps if isinstance(step, StepRecorded)],
        final_observation=ended.final_observation,
        outcome=final.outcome,
        labelled_by=final.labelled_by,
        label_wall_time_s=final.wall_time_s,
    )
