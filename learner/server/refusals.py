"""Errors that an actor has to tell apart, and how each goes to it."""

import logging
import time

import lmdb

from serl_launcher.errors import HiorsError, Refused, SessionFenced
from serl_launcher.transport import messages
from serl_launcher.transport.messages import ErrorReply

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 20_000
_COMPLAIN_EVERY_S = 10.0


class IdInUse(SessionFenced):
    """Another living actor, with a spool of its own, has that id."""


class StorageRefused(Refused):
    """The learner cannot write; the events should be sent again later."""


def storage_refused(error: lmdb.Error) -> StorageRefused:
    """Returns what actors are told while the journal cannot be written.

    Raises:
        lmdb.PanicError, lmdb.CorruptedError: It cannot be used any more; the process must start again.
    """
    if isinstance(error, lmdb.PanicError | lmdb.CorruptedError):
        raise error
    return StorageRefused(f"The learner cannot write its journal: {error}.")


_KINDS = {IdInUse: messages.ID_IN_USE, StorageRefused: messages.STORAGE}


def reply_of(error: HiorsError, *, request_id: int | None = None) -> ErrorReply:
    """Returns the message that carries an error to the actor."""
    kind = _KINDS.get(type(error), type(error).__name__)
    return ErrorReply(kind, str(error)[:_MAX_MESSAGE], request_id)


class Complaints:
    """Counts messages that cannot be understood, and logs one now and then: a stranger must not fill the disk."""

    def __init__(self) -> None:
        self.num_malformed = 0
        self._logged_s = float("-inf")

    def note(self, error: HiorsError) -> None:
        """Counts one more."""
        self.num_malformed += 1
        now_s = time.monotonic()
        if now_s - self._logged_s >= _COMPLAIN_EVERY_S:
            self._logged_s = now_s
            logger.warning("Refused a message (%d so far): %s", self.num_malformed, error)
