"""How an actor stands with the learner, and when it may say hello again.

    waiting --welcome--> welcome --error, silence--> waiting (longer after each error)
                          |  ^'---SessionFenced---> fenced: for good
        its disk is full  |  |  another welcome
                          '->held up: asks for actions, delivers nothing

An id that is in use is asked for again until its former holder counts as dead.
"""

import logging
import time

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import HiorsError, Refused, SessionFenced
from serl_launcher.transport import messages

logger = logging.getLogger(__name__)

STORAGE_RETRY_S = 1.0
_HELLO_AGAIN_S = 0.2
_HELLO_AGAIN_MAX_S = 2.0


class Standing:
    """Changed by the thread of the connection, read by any."""

    def __init__(self, config: TransportConfig) -> None:
        self._config = config
        self._in_use_since_s = float("inf")
        self._hello_due_s = float("-inf")
        self._hello_wait_s = _HELLO_AGAIN_S
        self._is_over = False
        self.is_welcome = False
        self.is_held_up = False
        """Whether the learner cannot write what is delivered; it does all else."""
        self.is_fenced = False
        self.last_error: HiorsError | None = None
        """Why the learner does not serve this actor, where somebody said so."""

    @property
    def is_hello_due(self) -> bool:
        """Whether it is time to say hello."""
        return time.monotonic() >= self._hello_due_s

    def note_hello(self) -> None:
        """A hello was sent; its answer is waited for."""
        self._is_over = self.is_held_up
        self._hello_due_s = time.monotonic() + self._config.request_timeout_s

    def note_welcome(self) -> None:
        """The learner has admitted this actor."""
        if not self.is_held_up:  # Whether its disk takes something again shows only when it does.
            self.last_error = None
        self.is_welcome = True
        self.is_held_up = self._is_over = False
        self._in_use_since_s = float("inf")
        self._hello_wait_s = _HELLO_AGAIN_S

    def forget(self) -> None:
        """The session is over; hello may be said at once."""
        self.is_welcome = self.is_held_up = False
        self._hello_due_s = float("-inf")

    def note_ack(self) -> None:
        """The learner has written something."""
        self.last_error = None

    def note_error(self, error: HiorsError, *, kind: str = "") -> None:
        """Something was refused. Unless a newer session has taken over, another hello is said later.

        Args:
            error: What the learner says.
            kind: How it calls that.
        """
        if kind == messages.STORAGE and self.is_welcome:
            self._hold_up(error)
        elif kind == messages.ID_IN_USE:
            self._note_id_in_use(error)
        else:
            self._hello_wait_s = STORAGE_RETRY_S if kind == messages.STORAGE else self._hello_wait_s
            self._end_session(error)

    def _hold_up(self, error: HiorsError) -> None:
        """The learner's disk is full; it is not asked more often than that can change. Actions are still asked for."""
        self._tell(error)
        self.is_held_up = self._is_over = True
        self._hello_due_s = time.monotonic() + STORAGE_RETRY_S

    def _note_id_in_use(self, error: HiorsError) -> None:
        """Waits as long as a dead predecessor counts as living before it believes that another actor has the id."""
        now_s = time.monotonic()
        self._in_use_since_s = min(self._in_use_since_s, now_s)
        self._wait()
        if now_s - self._in_use_since_s > 1.5 * self._config.dead_after_s:
            self._end_session(error)

    def _end_session(self, error: HiorsError) -> None:
        if self._is_over and type(error) is Refused:
            return  # Requests behind the refused one are refused as gaps: the first reason is the one to tell.
        self._tell(error)
        self.is_fenced = isinstance(error, SessionFenced) and self._in_use_since_s == float("inf")
        self._wait()

    def _tell(self, error: HiorsError) -> None:
        if str(error) != str(self.last_error):
            logger.warning("Not delivering now: %s", error)
        self.last_error = error

    def _wait(self) -> None:
        self._is_over = True
        self.is_welcome = self.is_held_up = False
        self._hello_due_s = time.monotonic() + self._hello_wait_s
        self._hello_wait_s = min(2 * self._hello_wait_s, _HELLO_AGAIN_MAX_S)
