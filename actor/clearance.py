"""Whether the actor may go on: stop requests, a paused learner, a full spool, errors that only a person can clear."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from actor.progress import Throttle
from serl_launcher.errors import ProtocolError, SessionFenced, SpecMismatch

logger = logging.getLogger(__name__)

FATAL = (SessionFenced, SpecMismatch, ProtocolError)
"""What the learner will not change its mind about."""


class Announced(Protocol):
    """What the learner last broadcast."""

    @property
    def stop(self) -> bool: ...

    @property
    def paused(self) -> bool: ...


class Learner(Protocol):
    """What clearance depends on; `serl_launcher.transport.client.LearnerClient` is one."""

    @property
    def announcement(self) -> Announced | None:
        """The newest broadcast; None before the first."""
        ...

    @property
    def last_error(self) -> Exception | None:
        """What the connection last complained about."""
        ...


class Room(Protocol):
    """Where episodes are stored; `actor.spool.Spool` is one."""

    @property
    def is_full(self) -> bool:
        """Whether no further episode should begin."""
        ...


@dataclass(kw_only=True, slots=True)
class Clearance:
    """Answers the two questions of a rollout: stop? and: begin another episode?"""

    learner: Learner
    room: Room
    poll_s: float = 0.1
    waits_for: str = ""
    """Why no episode begins; empty while none is waited for."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _complaint: Throttle = field(default_factory=lambda: Throttle(60.0))

    def request_stop(self) -> None:
        """Makes every wait and the current episode end; safe to call from a signal handler."""
        self._stop.set()

    def is_stopping(self) -> bool:
        """Whether a person or the learner asked the actor to stop.

        Raises:
            SessionFenced, SpecMismatch, ProtocolError: The learner does not accept this actor.
        """
        error = self.learner.last_error
        if isinstance(error, FATAL):
            raise error
        return self.was_asked_to_stop

    @property
    def was_asked_to_stop(self) -> bool:
        """Whether a person or the learner asked the actor to stop, whatever else happened."""
        announced = self.learner.announcement
        return self._stop.is_set() or (announced is not None and announced.stop)

    @property
    def is_refused(self) -> bool:
        """Whether the learner will not take anything from this actor."""
        return isinstance(self.learner.last_error, FATAL)

    def wait_for_next_episode(self, *, is_needed: Callable[[], bool] = lambda: False) -> bool:
        """Waits while the learner pauses or the spool is full; returns False where the actor is to stop.

        Args:
            is_needed: Whether the loop is needed for something else, e.g. a fault that a person wants to clear; it
                ends the wait.
        """
        try:
            while not self.is_stopping():
                self.waits_for = self._reason_to_wait()
                if not self.waits_for or is_needed():
                    return True
                if self._complaint.is_due():
                    logger.warning("No new episode: %s", self.waits_for)
                time.sleep(self.poll_s)
            return False
        finally:
            self.waits_for = ""

    def _reason_to_wait(self) -> str:
        if self.room.is_full:
            return "the spool is full; start the learner or raise transport.spool_max_bytes."
        announced = self.learner.announcement
        if announced is not None and announced.paused:
            return "the learner asked for a pause."
        return ""
