"""Delivers what an actor recorded: a window of requests under way, and nothing sent that the disk does not have."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import lmdb

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ProtocolError
from serl_launcher.transport.messages import Steps

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


class EventSource(Protocol):
    """Where recorded events wait; `actor.spool.Spool` is one. Sequence numbers begin at 1, without gaps."""

    epoch: int
    spool_id: str

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event."""
        ...

    @property
    def acknowledged_seq(self) -> int:
        """Sequence number of the newest event that was acknowledged and deleted."""
        ...

    @property
    def num_pending(self) -> int:
        """Events that are not acknowledged."""
        ...

    def pending(self, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Returns (sequence, event) after `after_seq` in order; at least one where there is one."""
        ...

    def acknowledge(self, seq: int) -> None:
        """Deletes the events up to `seq`."""
        ...

    def sync(self) -> None:
        """Forces all events to disk."""
        ...

    def set_listener(self, listener: Callable[[], None] | None) -> None:
        """Sets what is called after each append."""
        ...


class Syncer:
    """Syncs a source in a thread of its own, again and again while events come."""

    def __init__(self, source: EventSource, *, on_synced: Callable[[], None]) -> None:
        self._source = source
        self._on_synced = on_synced
        self._wanted = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="spool-sync", daemon=True)
        self.synced_seq = source.acknowledged_seq
        """Events up to this number survive a power cut, and may be sent."""

    def start(self) -> None:
        """Starts the thread."""
        self._wanted.set()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._is_stopping = True
        self._wanted.set()
        self._thread.join()

    def request(self) -> None:
        """Asks for another sync; returns at once."""
        self._wanted.set()

    def _work(self) -> None:
        while self._wanted.wait() and not self._is_stopping:
            self._wanted.clear()
            last_seq = self._source.last_seq
            if last_seq == self.synced_seq:
                continue
            try:
                self._source.sync()
            except lmdb.Error as exc:
                logger.error("The spool cannot be synced: %s. Trying again; free disk space.", exc)
                time.sleep(_RETRY_S)
                self._wanted.set()
                continue
            self.synced_seq = last_seq
            self._on_synced()


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One Steps request."""

    header: Steps
    events: list[bytes]

    @property
    def last_seq(self) -> int:
        """Sequence number of its last event."""
        return self.header.first_seq + self.header.count - 1


class Delivery:
    """Which events are under way to the learner. Used by one thread; any may wait for the end."""

    def __init__(self, config: TransportConfig, source: EventSource) -> None:
        self._config = config
        self._source = source
        self._credits = 0
        self._sent_seq = source.acknowledged_seq
        self._ever_sent_seq = self._sent_seq
        self._under_way: deque[tuple[int, float]] = deque()
        self._progress = threading.Condition()

    def restart(self, *, last_seq: int, num_credits: int) -> None:
        """Goes on after what the learner says it has.

        Raises:
            ProtocolError: The learner has more than this spool ever held.
        """
        if last_seq > self._source.last_seq:
            raise ProtocolError(
                f"The learner has this actor's events up to {last_seq}, but its spool ends at {self._source.last_seq}: "
                "an older copy of the spool was restored. Move the spool directory away and start again."
            )
        self._source.acknowledge(last_seq)
        self._sent_seq = last_seq
        self._ever_sent_seq = max(self._ever_sent_seq, last_seq)
        self._credits = num_credits
        self._under_way.clear()
        self._note_progress()

    def next_batch(self, up_to_seq: int) -> Batch | None:
        """Returns what to send next, of the events up to `up_to_seq`; None where nothing may be sent now."""
        if len(self._under_way) >= self._credits or self._sent_seq >= up_to_seq:
            return None
        max_events = min(self._config.max_batch_events, up_to_seq - self._sent_seq)
        events = self._source.pending(self._sent_seq, max_events, self._config.max_batch_bytes)
        if not events:
            return None
        return Batch(header=Steps(events[0][0], len(events)), events=[encoded for _, encoded in events])

    def note_sent(self, batch: Batch) -> None:
        """Counts a batch as under way."""
        self._sent_seq = batch.last_seq
        self._ever_sent_seq = max(self._ever_sent_seq, batch.last_seq)
        self._under_way.append((batch.last_seq, time.monotonic()))

    def acknowledge(self, last_seq: int) -> None:
        """Deletes what the learner has committed.

        That may be more than was sent since `restart`: what was under way then can be committed after the learner said
        how far it was.

        Raises:
            ProtocolError: The learner acknowledges what was never sent.
        """
        if last_seq > self._ever_sent_seq:
            raise ProtocolError(f"The learner acknowledged event {last_seq}, but only {self._ever_sent_seq} were sent.")
        self._sent_seq = max(self._sent_seq, last_seq)
        while self._under_way and self._under_way[0][0] <= last_seq:
            self._under_way.popleft()
        if last_seq > self._source.acknowledged_seq:
            self._source.acknowledge(last_seq)
        self._note_progress()

    def wait_until_done(self, timeout_s: float) -> bool:
        """Waits until everything that was recorded is committed; returns whether it is."""
        with self._progress:
            return self._progress.wait_for(lambda: not self._source.num_pending, timeout_s)

    @property
    def is_overdue(self) -> bool:
        """Whether a request was not answered in time."""
        return bool(self._under_way) and time.monotonic() - self._under_way[0][1] > self._config.request_timeout_s

    def _note_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()
