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


def admit_session(changes: JournalTransaction, hello: Hello) -> Cursor:
    """Returns the cursor from which the session goes on.

    Raises:
        SessionFenced: A newer session of that actor was admitted before.
        ProtocolError: The actor has deleted events that this journal does not have.
    """
    former = changes.cursor(hello.actor_id)
    if former is not None:
        check_epoch(former, actor_id=hello.actor_id, epoch=hello.epoch, spool_id=hello.spool_id)
    cursor = former
    if cursor is None or cursor.spool_id != hello.spool_id:
        cursor = _first_cursor(changes, hello, former)
    if hello.first_seq > cursor.last_seq:
        raise ProtocolError(
            f"Actor {hello.actor_id!r} has deleted its events up to {hello.first_seq}, but this learner has only those "
            f"up to {cursor.last_seq}: its journal was replaced by an older copy. Start the learner with another "
            "unique_identifier."
        )
    cursor = msgspec.structs.replace(cursor, epoch=hello.epoch)
    if cursor != former:
        changes.put_cursor(hello.actor_id, cursor)
    return cursor


def _first_cursor(changes: JournalTransaction, hello: Hello, former: Cursor | None) -> Cursor:
    """Returns the cursor of a spool that this journal meets for the first time."""
    if former is not None:
        abandoned = changes.open_episodes(hello.actor_id)
        logger.warning(
            "Actor %r comes with a new spool. Its %d episodes under way are closed as aborted.",
            hello.actor_id, len(abandoned),
        )  # fmt: skip
        for episode_id in abandoned:
            _abort(changes, episode_id)
    elif hello.first_seq:
        logger.warning(
            "Actor %r is new to this journal, but delivered %d events elsewhere; what belongs to those is not kept.",
            hello.actor_id, hello.first_seq,
        )  # fmt: skip
    return Cursor(
        spool_id=hello.spool_id,
        epoch=hello.epoch,
        last_seq=hello.first_seq,
        first_seq=hello.first_seq,
        num_steps=former.num_steps if former else 0,
        num_episodes=former.num_episodes if former else 0,
    )


def _abort(changes: JournalTransaction, episode_id: str) -> None:
    """Closes an episode whose actor will never send its end: the last observation stands in for the final one."""
    entry = changes.episode(episode_id)
    assert entry is not None, "it is in the list of open ones"
    last = changes.last_step(entry)
    if last is None:
        changes.drop_episode(episode_id, entry)
        return
    step, seq = last
    ended = EpisodeEnded(
        episode_id, entry.num_steps, step.observation, Outcome.ABORTED, labelled_by="", wall_time_s=step.wall_time_s
    )
    changes.put_event(entry, seq + 1, encode_event(ended))
    changes.close_episode(episode_id, entry)
