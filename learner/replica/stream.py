"""The sealed episodes of a replay and its later labels as one stream of events, the same after every restart.

A stream is what an actor's spool is to the learner: events with sequence numbers from 1 on, sent again until they are
acknowledged. Pictures and vectors are read from the dataset when they are sent; what a small log keeps is the order:

    {"stream": "5f1c..."}                                                  name of the stream
    {"epoch": 2}                                                           opened for the second time
    {"episode": 0, "is_label": false, "num_events": 39, ...}               37 steps, start and end with the first label
    {"episode": 0, "is_label": true, "outcome": "failure", ...}            a later label: 1 event
"""

import bisect
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.recorded import read_recorded
from serl_launcher.errors import DatasetError, SessionFenced
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, encode_event
from serl_launcher.specs import RobotSpec
from serl_launcher.storage import DirectoryLock
from serl_launcher.types import Outcome

_LOG = "stream.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An episode with the label it had when it was noted, or a later label of one."""

    episode: int
    """Its index in the dataset."""
    episode_id: str
    is_label: bool
    num_events: int
    outcome: Outcome
    labelled_by: str
    wall_time_s: float
    """When the label was given; of the noting where a later one replaced it."""


class ReplayStream:
    """An `EventSource` over a growing dataset. `follow` belongs to one thread, the rest to that of the connection."""

    def __init__(self, dataset: ReplayDataset, spec: RobotSpec, directory: Path) -> None:
        """Opens or begins the log in `directory`, a new epoch of it.

        Raises:
            SessionFenced: Another living process uses it.
            DatasetError: The log is of another dataset.
        """
        self._dataset, self._spec = dataset, spec
        self._lock = DirectoryLock(directory, error=SessionFenced)
        self._path = directory / _LOG
        self._changed = threading.Lock()
        self._listener: Callable[[], None] | None = None
        self._entries: list[Entry] = []
        self._ends: list[int] = []
        """Sequence number of the last event of each entry."""
        self._labels: dict[int, tuple[str, str]] = {}
        self._sending: tuple[int, list[bytes]] = (-1, [])
        self.spool_id, self.epoch = "", 0
        self.acknowledged_seq = 0
        self._read()
        self._log = self._path.open("a", encoding="utf-8")
        self._note([{"stream": self.spool_id} if self.epoch == 1 else {"epoch": self.epoch}])

    def close(self) -> None:
        """Closes the log."""
        self._log.close()
        self._lock.release()

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return self._ends[-1] if self._ends else 0

    @property
    def num_pending(self) -> int:
        """Events that are not acknowledged."""
        return self.last_seq - self.acknowledged_seq

    @property
    def num_delivered_episodes(self) -> int:
        """Episodes of which the other machine has every event."""
        delivered = bisect.bisect_right(self._ends, self.acknowledged_seq)
        return sum(not entry.is_label for entry in self._entries[:delivered])

    def follow(self) -> int:
        """Adds the episodes and labels that the dataset has got; returns how many.

        Raises:
            DatasetError: The dataset is damaged, or has no names for its episodes.
        """
        self._dataset.refresh()
        known = len(self._labels)
        added = [self._entry(episode, is_label=False) for episode in range(known, self._dataset.num_episodes)]
        relabelled = [episode for episode in range(known) if self._labels[episode] != self._dataset.label_of(episode)]
        added += [self._entry(episode, is_label=True) for episode in relabelled]
        self._note([_as_line(entry) for entry in added])
        with self._changed:
            for entry in added:
                self._add(entry)
        if added and self._listener is not None:
            self._listener()
        return len(added)

    def pending(self, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Returns (sequence, event) after `after_seq` in order; at least one where there is one."""
        with self._changed:
            number = bisect.bisect_right(self._ends, after_seq)
            if number == len(self._entries):
                return []
            entry, end = self._entries[number], self._ends[number]
        events = self._events(number, entry)
        first = len(events) - (end - after_seq)
        found: list[tuple[int, bytes]] = []
        num_bytes = 0
        for event in events[first : first + max_events]:
            num_bytes += len(event)
            if found and num_bytes > max_bytes:
                break
            found.append((after_seq + len(found) + 1, event))
        return found

    def acknowledge(self, seq: int) -> None:
        """Notes that the other machine has the events up to `seq`."""
        self.acknowledged_seq = max(self.acknowledged_seq, seq)

    def sync(self) -> None:
        """Does nothing: what `follow` has added is on disk."""

    def set_listener(self, listener: Callable[[], None] | None) -> None:
        """Sets what is called when events were added."""
        self._listener = listener

    def _entry(self, episode: int, *, is_label: bool) -> Entry:
        outcome, labelled_by = self._dataset.label_of(episode)
        episode_id = self._dataset.episode_id(episode)
        if not episode_id:
            raise DatasetError(f"Expected a replay that hiors wrote in {self._dataset.root}; its episodes have no ids.")
        return Entry(
            episode=episode, episode_id=episode_id, is_label=is_label, outcome=Outcome(outcome),
            labelled_by=labelled_by, wall_time_s=time.time(),
            num_events=1 if is_label else int(self._dataset.episodes.length[episode]) + 2,
        )  # fmt: skip

    def _events(self, number: int, entry: Entry) -> list[bytes]:
        """Returns the encoded events of an entry; the ones of the last one asked for are kept."""
        if self._sending[0] != number:
            self._sending = (number, _encoded(entry, self._dataset.root, self._spec))
        if len(self._sending[1]) != entry.num_events:
            raise DatasetError(
                f"Episode {entry.episode} of {self._dataset.root} has other steps than when it was noted. Begin the "
                f"replica anew: delete {self._path.parent} and the replica's run directory."
            )
        return self._sending[1]

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._ends.append(self.last_seq + entry.num_events)
        self._labels[entry.episode] = (str(entry.outcome), entry.labelled_by)

    def _note(self, lines: list[dict[str, object]]) -> None:
        """Forces lines to disk; nothing that they tell of is sent before."""
        if not lines:
            return
        self._log.write("".join(json.dumps(line) + "\n" for line in lines))
        self._log.flush()
        os.fsync(self._log.fileno())

    def _read(self) -> None:
        """Reads the log; a last line that a power cut left unfinished is cut off, for nothing of it was sent."""
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        self.spool_id = str(lines[0]["stream"]) if lines else uuid.uuid4().hex
        self.epoch = 1 + sum("stream" in line or "epoch" in line for line in lines)
        for line in lines:
            if "episode" in line:
                self._add(_as_entry(line))
        for entry in self._entries:
            same = entry.episode < self._dataset.num_episodes
            if not same or self._dataset.episode_id(entry.episode) != entry.episode_id:
                raise DatasetError(
                    f"Expected episode {entry.episode_id!r} as number {entry.episode} of {self._dataset.root}: the log "
                    f"of the replica in {self._path.parent} is of another replay. Delete it and the replica's run."
                )


def _encoded(entry: Entry, root: Path, spec: RobotSpec) -> list[bytes]:
    if entry.is_label:
        label = EpisodeLabelled(entry.episode_id, entry.outcome, entry.labelled_by, entry.wall_time_s)
        return [encode_event(label)]
    record = read_recorded(root, entry.episode, spec)
    num_steps = len(record.steps)
    began = EpisodeStarted(record.episode_id, record.prompt, record.started_wall_time_s, record.seed)
    is_newest = (record.outcome, record.labelled_by) == (entry.outcome, entry.labelled_by)
    judged_s = record.label_wall_time_s if is_newest else entry.wall_time_s
    ended = EpisodeEnded(
        record.episode_id, num_steps, record.final_observation, entry.outcome, entry.labelled_by, judged_s
    )
    return [encode_event(event) for event in (began, *record.steps, ended)]


def _as_line(entry: Entry) -> dict[str, object]:
    return {
        "episode": entry.episode, "id": entry.episode_id, "is_label": entry.is_label, "num_events": entry.num_events,
        "outcome": str(entry.outcome), "labelled_by": entry.labelled_by, "wall_time_s": entry.wall_time_s,
    }  # fmt: skip


def _as_entry(line: dict) -> Entry:
    return Entry(
        episode=int(line["episode"]), episode_id=str(line["id"]), is_label=bool(line["is_label"]),
        num_events=int(line["num_events"]), outcome=Outcome(line["outcome"]), labelled_by=str(line["labelled_by"]),
        wall_time_s=float(line["wall_time_s"]),
    )  # fmt: skip
