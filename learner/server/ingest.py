"""Decides which recorded events enter the journal: each once, in order, from the newest session of its actor."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import lmdb
import msgspec

from learner.server.admission import admit_session, check_epoch, check_hello, check_same_robot
from serl_launcher import failpoints
from serl_launcher.errors import HiorsError, ProtocolError, Refused, SessionFenced, SpecMismatch
from serl_launcher.events import (
    EpisodeEnded,
    EpisodeLabelled,
    EpisodeStarted,
    Event,
    StepRecorded,
    check_fits,
    view_event,
)
from serl_launcher.journal import Journal
from serl_launcher.journal_tables import Cursor, EpisodeEntry, JournalTransaction
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import Frame, Hello
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """Events of one Steps request, as they came.

    Example:
        StepBatch(actor_id="actor-0", epoch=3, spool_id="5f1c...", first_seq=41, events=(b"...", b"..."))
    """

    actor_id: str
    epoch: int
    spool_id: str
    first_seq: int
    events: Sequence[Frame]


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What became of one batch or hello: the spool is committed up to `last_seq`, or it is refused with `error`."""

    last_seq: int = 0
    error: HiorsError | None = None
    has_written: bool = False
    """Whether it changed the journal: only then does success tell that the disk takes something."""


@dataclass(kw_only=True, slots=True)
class _Plan:
    """Changes of one batch, worked out before the first is written, so that a refused batch leaves no trace."""

    episodes: dict[str, EpisodeEntry | None] = field(default_factory=dict)
    writes: list[tuple[int, Event, Frame]] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Why events are not kept, one reason each."""


class Ingest:
    """Admits sessions and commits their events; used by one thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._spec = journal.spec()

    @property
    def spec(self) -> RobotSpec | None:
        """The robot of this run; None before the first actor came. May be read from any thread."""
        return self._spec

    def require_spec(self, spec: RobotSpec, *, who: str) -> None:
        """Fixes the robot of this run by the first that comes, and refuses every other.

        Raises:
            SpecMismatch: The run has another robot; the message names what differs.
        """
        if self._spec is None:
            self._journal.put_spec(spec)
            self._spec = spec
            logger.info("The robot of this run is %r, as %s describes it.", spec.name, who)
        check_same_robot(ours=self._spec, theirs=spec, who=who)

    def admit(self, hello: Hello) -> int:
        """Opens a session; returns the last committed sequence number of its spool.

        Raises:
            SpecMismatch: The actor drives another robot than the one of this run.
            SessionFenced: A newer session of that actor was admitted before.
            ProtocolError: The hello contradicts itself, or what the journal knows.
            lmdb.Error: The disk is full or broken.
        """
        [committed] = self.commit([hello])
        if committed.error is not None:
            raise committed.error
        return committed.last_seq

    def cursors(self) -> dict[str, Cursor]:
        """Returns how far each actor ever seen is committed."""
        return self._journal.cursors()

    @property
    def is_grouped(self) -> bool:
        """Whether batches share a transaction; with durability `always` each has its own."""
        return self._journal.durability != "always"

    def commit(self, requests: Sequence[StepBatch | Hello]) -> list[Committed]:
        """Opens sessions and commits batches in one transaction, in order; returns what became of each.

        A batch is taken whole or not at all. Events that are committed already are acknowledged again. An error of a
        hello is one of `admit`.

        Raises:
            lmdb.Error: Nothing was committed: the disk is full or broken.
        """
        prepared = [self._prepare(request) for request in requests]
        has_events = any(isinstance(request, StepBatch) for request in requests)
        with self._journal.transaction() as changes:
            results = [
                Committed(error=events) if isinstance(events, HiorsError) else _apply(changes, request, events)
                for request, events in zip(requests, prepared, strict=True)
            ]
            if has_events:
                changes.require_room()
                failpoints.reached("commit written")
        if has_events:
            failpoints.reached("committed")
        else:
            failpoints.reached("admitted")
        return results

    def _prepare(self, request: StepBatch | Hello) -> list[Event] | HiorsError:
        """Returns the events of a request, or why it is refused; done outside of the transaction."""
        try:
            if isinstance(request, Hello):
                check_hello(request)
                self.require_spec(request.spec, who=f"actor {request.actor_id!r}")
                return []
            return [_decode_checked(encoded, self._spec) for encoded in request.events]
        except (ProtocolError, SpecMismatch) as exc:
            return exc
        except lmdb.Error:
            raise
        except Exception as exc:  # A mistake of ours in one request must not end the thread that commits all of them.
            logger.exception("A request of actor %r could not be checked.", request.actor_id)
            return ProtocolError(f"The learner failed on this request: {exc!r}.")


def _decode_checked(encoded: Frame, spec: RobotSpec | None) -> Event:
    if spec is None:
        raise ProtocolError("Expected a hello that describes the robot before its events.")
    event = view_event(encoded)
    check_fits(event, spec)
    return event


def _apply(changes: JournalTransaction, request: StepBatch | Hello, events: list[Event]) -> Committed:
    try:
        if isinstance(request, Hello):
            cursor, has_written = admit_session(changes, request)
            return Committed(last_seq=cursor.last_seq, has_written=has_written)
        return _apply_batch(changes, request, events)
    except (ProtocolError, Refused, SessionFenced) as exc:
        return Committed(error=exc)


def _apply_batch(changes: JournalTransaction, batch: StepBatch, events: list[Event]) -> Committed:
    cursor = _checked_cursor(changes, batch)
    plan = _planned(changes, batch, events, cursor)
    last_seq = batch.first_seq + len(events) - 1
    if last_seq <= cursor.last_seq:
        return Committed(last_seq=cursor.last_seq)
    _write(changes, batch.actor_id, plan)
    num_steps = sum(isinstance(event, StepRecorded) for _, event, _ in plan.writes)
    num_ended = sum(isinstance(event, EpisodeEnded) for _, event, _ in plan.writes)
    changes.count(steps=num_steps, orphans=len(plan.orphans))
    advanced = msgspec.structs.replace(
        cursor,
        last_seq=last_seq,
        num_steps=cursor.num_steps + num_steps,
        num_episodes=cursor.num_episodes + num_ended,
    )
    changes.put_cursor(batch.actor_id, advanced)
    return Committed(last_seq=last_seq, has_written=True)


def _checked_cursor(changes: JournalTransaction, batch: StepBatch) -> Cursor:
    cursor = changes.cursor(batch.actor_id)
    if cursor is None or cursor.spool_id != batch.spool_id:
        raise SessionFenced(f"Actor {batch.actor_id!r} came back with another spool; this session is over.")
    check_epoch(cursor, actor_id=batch.actor_id, epoch=batch.epoch, spool_id=batch.spool_id)
    if batch.first_seq > cursor.last_seq + 1:
        raise Refused(
            f"Expected event {cursor.last_seq + 1} of actor {batch.actor_id!r}, got {batch.first_seq}: "
            f"{batch.first_seq - cursor.last_seq - 1} events are missing. Send again from there."
        )
    return cursor


def _planned(changes: JournalTransaction, batch: StepBatch, events: list[Event], cursor: Cursor) -> _Plan:
    plan = _Plan()
    for seq, event in enumerate(events, batch.first_seq):
        if seq <= cursor.last_seq:
            continue
        if event.episode_id not in plan.episodes:
            plan.episodes[event.episode_id] = changes.episode(event.episode_id)
        entry = plan.episodes[event.episode_id]
        orphaned = _why_orphaned(event, entry, batch.actor_id, cursor)
        if orphaned:
            plan.orphans.append(orphaned)
            continue
        plan.episodes[event.episode_id] = _entry_after(event, entry, batch.actor_id)
        plan.writes.append((seq, event, batch.events[seq - batch.first_seq]))
    if plan.orphans:
        logger.warning("Not kept, %d events of actor %r: %s", len(plan.orphans), batch.actor_id, plan.orphans[0])
    return plan


def _why_orphaned(event: Event, entry: EpisodeEntry | None, actor_id: str, cursor: Cursor) -> str:
    """Returns why an event is counted and not kept; empty where it is kept, or out of place.

    What is out of place is a mistake that no resending mends. Orphans are nobody's mistake, and must not block a spool.
    """
    if entry is None:
        is_orphan = isinstance(event, EpisodeLabelled) or cursor.first_seq > 0
        return _unknown(event) if is_orphan and not isinstance(event, EpisodeStarted) else ""
    what = f"{type(event).__name__} of {event.episode_id!r}"
    if entry.actor_id != actor_id:
        return f"{what}, which is an episode of {entry.actor_id!r}."
    is_late = isinstance(event, StepRecorded | EpisodeEnded) and entry.state != "open"
    if is_late and (entry.is_cut_off or cursor.first_seq > 0):
        return f"{what}, which was closed when its actor came with another spool."
    return ""


def _entry_after(event: Event, entry: EpisodeEntry | None, actor_id: str) -> EpisodeEntry:
    """Returns the entry of an episode after one more event; raises ProtocolError where the event is out of place."""
    if isinstance(event, EpisodeStarted):
        if entry is not None:
            raise ProtocolError(f"Expected a new episode, got {event.episode_id!r}, which exists.")
        return EpisodeEntry(number=-1, actor_id=actor_id, state="open")
    if entry is None:
        raise ProtocolError(_unknown(event))
    if isinstance(event, EpisodeLabelled):
        return entry
    if entry.state != "open":
        raise ProtocolError(f"Expected an open episode, got {event.episode_id!r}, which is {entry.state}.")
    number = event.step if isinstance(event, StepRecorded) else event.num_steps
    if number != entry.num_steps:
        raise ProtocolError(f"Episode {event.episode_id!r} has {entry.num_steps} steps, the next event says {number}.")
    if isinstance(event, StepRecorded):
        return msgspec.structs.replace(entry, num_steps=entry.num_steps + 1)
    return msgspec.structs.replace(entry, state="closed" if entry.num_steps else "empty")


def _write(changes: JournalTransaction, actor_id: str, plan: _Plan) -> None:
    touched: dict[str, EpisodeEntry] = {}
    for seq, event, encoded in plan.writes:
        episode_id = event.episode_id
        if isinstance(event, EpisodeStarted):
            touched[episode_id] = changes.start_episode(actor_id, seq, episode_id, encoded)
            continue
        entry = touched.get(episode_id) or changes.episode(episode_id)
        assert entry is not None, "the plan has checked it"
        if isinstance(event, EpisodeLabelled):
            changes.put_label(episode_id, entry, encoded)
            continue
        changes.put_event(entry, seq, encoded)
        if isinstance(event, StepRecorded):
            touched[episode_id] = msgspec.structs.replace(entry, num_steps=entry.num_steps + 1)
        else:
            if event.outcome is not Outcome.UNLABELLED:
                changes.drop_label(episode_id)
            changes.close_episode(episode_id, entry)
            touched.pop(episode_id, None)
    for episode_id, entry in touched.items():
        changes.put_episode(episode_id, entry)


def _unknown(event: Event) -> str:
    return f"Expected a known episode, got {type(event).__name__} of {event.episode_id!r}."
