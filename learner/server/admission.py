"""Decides who may open a session: one robot per run, one living session per actor, the newest wins."""

import logging

import msgspec

from serl_launcher.errors import ProtocolError, SessionFenced, SpecMismatch
from serl_launcher.events import MAX_ID_BYTES, EpisodeEnded, encode_event
from serl_launcher.journal_tables import Cursor, JournalTransaction
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import Hello
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)


def check_hello(hello: Hello) -> None:
    """Raises ProtocolError where a hello contradicts itself."""
    if len(hello.actor_id.encode()) > MAX_ID_BYTES:
        raise ProtocolError(f"Expected an actor id of at most {MAX_ID_BYTES} bytes, got {hello.actor_id!r}.")
    if hello.spec.digest() != hello.spec_digest:
        raise ProtocolError(f"Actor {hello.actor_id!r} sends a robot that does not have the digest it names.")


def check_same_robot(*, ours: RobotSpec, theirs: RobotSpec, who: str) -> None:
    """Raises SpecMismatch that names both sides and every field in which they differ."""
    if ours.digest() == theirs.digest():
        return
    mine, other = msgspec.to_builtins(ours), msgspec.to_builtins(theirs)
    details = "; ".join(
        f"{key}: learner {mine[key]!r}, actor {other[key]!r}" for key in mine if mine[key] != other[key]
    )
    raise SpecMismatch(
        f"The robot of {who} (digest {theirs.digest()[:8]}) is not the robot of this run (digest {ours.digest()[:8]}). "
        f"{details[:3000]}. Start both with the same task, or the learner with another unique_identifier."
    )


def check_epoch(cursor: Cursor, *, actor_id: str, epoch: int, spool_id: str) -> None:
    """Raises SessionFenced where a newer session of that actor was admitted."""
    is_older = epoch < cursor.epoch or (epoch == cursor.epoch and spool_id != cursor.spool_id)
    if is_older:
        raise SessionFenced(
            f"Actor {actor_id!r} of session {epoch} is shut out: session {cursor.epoch} of that id came after it. "
            "Give each robot its own actor.id; if the clock of this machine was set back, correct it."
        )


def admit_session(changes: JournalTransaction, hello: Hello) -> tuple[Cursor, bool]:
    """Returns the cursor from which the session goes on, and whether the journal was changed.

    Raises:
        SessionFenced: A newer session of that actor was admitted before.
        ProtocolError: The actor has deleted events that this journal does not have.
    """
    former = changes.cursor(hello.actor_id)
    if former is not None:
        check_epoch(former, actor_id=hello.actor_id, epoch=hello.epoch, spool_id=hello.spool_id)
    cursor = former
    if former is None or former.spool_id != hello.spool_id:
        cursor = changes.former_cursor(hello.actor_id, hello.spool_id)
    if cursor is not None and hello.first_seq > cursor.last_seq:
        raise ProtocolError(
            f"Actor {hello.actor_id!r} has deleted its events up to {hello.first_seq}, but this learner has only those "
            f"up to {cursor.last_seq}: its journal was replaced by an older copy. Start the learner with another "
            "unique_identifier."
        )
    if former is not None and former.spool_id != hello.spool_id:
        _put_away(changes, hello.actor_id, former)
    if cursor is None:
        cursor = _first_cursor(hello)
    if former is not None:  # The totals are the actor's, not the spool's.
        cursor = msgspec.structs.replace(cursor, num_steps=former.num_steps, num_episodes=former.num_episodes)
    cursor = msgspec.structs.replace(cursor, epoch=hello.epoch)
    if cursor != former:
        changes.put_cursor(hello.actor_id, cursor)
    return cursor, cursor != former


def _first_cursor(hello: Hello) -> Cursor:
    """Returns the cursor of a spool that this journal meets for the first time."""
    if hello.first_seq:
        logger.warning(
            "The spool of actor %r is new to this journal, but delivered %d events elsewhere; what belongs to those is "
            "not kept.", hello.actor_id, hello.first_seq,
        )  # fmt: skip
    return Cursor(
        spool_id=hello.spool_id, epoch=hello.epoch, last_seq=hello.first_seq, first_seq=hello.first_seq
    )  # fmt: skip


def _put_away(changes: JournalTransaction, actor_id: str, former: Cursor) -> None:
    """Keeps how far the former spool is committed, and closes the episodes whose end it may never send."""
    changes.put_away_cursor(actor_id, former)
    num_closed = sum(_cut_off(changes, episode_id) for episode_id in changes.open_episodes(actor_id))
    logger.warning(
        "Actor %r comes with another spool. Its %d episodes under way are closed as aborted.", actor_id, num_closed
    )


def _cut_off(changes: JournalTransaction, episode_id: str) -> bool:
    """Closes an episode whose end may never come: the last observation stands in for the final one.

    One without steps stays open, so that nothing of it is missing where its spool comes back.
    """
    entry = changes.episode(episode_id)
    assert entry is not None, "it is in the list of open ones"
    last = changes.last_step(entry)
    if last is None:
        return False
    step, seq = last
    ended = EpisodeEnded(
        episode_id, entry.num_steps, step.observation, Outcome.ABORTED, labelled_by="", wall_time_s=step.wall_time_s
    )
    changes.put_event(entry, seq + 1, encode_event(ended))
    changes.close_episode(episode_id, msgspec.structs.replace(entry, is_cut_off=True))
    return True
