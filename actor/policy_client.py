"""Asks the learner for action chunks, and never gives up while it is away."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from actor.realtime_plan import Answer
from serl_launcher.errors import DeadlineExceeded, PolicyError, Refused
from serl_launcher.types import ActionChunk, Observation, Unfinished

logger = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0
RETRY_AFTER_S = 0.25
STOP_POLL_S = 0.1
_WINDOW = 1000
TEMPORARY = (DeadlineExceeded, Refused, PolicyError)
"""Failures after which asking again makes sense; every other error is a person's business."""


class ActionService(Protocol):
    """What answers action requests; `serl_launcher.transport.client.LearnerClient` is one."""

    def act_async(
        self, observations: list[Observation], *, timeout_s: float, unfinished: Sequence[Unfinished | None] = ...
    ) -> Future[list[ActionChunk]]:
        """Asks for one chunk per observation, all from the same weights."""
        ...


class RemotePolicy:
    """Asks the learner, and goes on asking for ever while it is away."""

    def __init__(
        self,
        service: ActionService,
        *,
        timeout_s: float,
        is_stopping: Callable[[], bool],
        wait_for_policy_s: float = 0.0,
    ) -> None:
        """Prepares to ask; nothing is sent yet.

        Args:
            service: Who answers.
            timeout_s: Deadline of one request, in seconds.
            is_stopping: Whether the actor is to stop; it ends every wait.
            wait_for_policy_s: How long the first answer may take before the actor gives up; 0: for ever.
        """
        self._service = service
        self._timeout_s = timeout_s
        self._is_stopping = is_stopping
        self._wait_for_policy_s = wait_for_policy_s
        self._pending: Future[list[ActionChunk]] | None = None
        self._asked: list[tuple[int, Future[list[ActionChunk]]]] = []
        self._quiet_until_s = -math.inf
        self.num_failures = 0
        """Questions that were answered by an error or not in time."""
        self._round_trips_ms: deque[float] = deque(maxlen=_WINDOW)
        self._away_since: float | None = None
        self._complained_at = -math.inf
        self._has_complained = False
        self._has_answered = False

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        """Returns the next actions, or None after `patience_s` seconds or when the actor is to stop.

        A request that was not answered in time stays under way, and the next call takes up its answer.

        Raises:
            DeadlineExceeded: No policy answered within `wait_for_policy_s` of the first request.
        """
        give_up_at = time.monotonic() + patience_s
        while not self._is_stopping():
            if self._pending is None:
                self._pending = self._service.act_async([observation], timeout_s=self._timeout_s)
            try:
                [chunk] = self._pending.result(timeout=min(STOP_POLL_S, max(give_up_at - time.monotonic(), 0.0)))
            except TimeoutError:
                pass  # Still under way.
            except TEMPORARY as exc:
                self._pending = None
                self._note_failure(exc)
                time.sleep(min(RETRY_AFTER_S, max(give_up_at - time.monotonic(), 0.0)))
            else:
                self._pending = None
                self._note_answer(chunk)
                return chunk
            if time.monotonic() >= give_up_at:
                return None
        return None

    def ask(
        self,
        observation: Observation,
        *,
        tick: int,
        unfinished: Unfinished | None = None,
        timeout_s: float = math.inf,
    ) -> bool:
        """Asks without waiting; returns False, and does not ask, where it was refused less than RETRY_AFTER_S ago.

        Args:
            observation: What the robot sees now.
            tick: Comes back with the answer.
            unfinished: What the next chunk should continue.
            timeout_s: After this the answer is of no use, in seconds; never longer than the deadline of all requests.
        """
        if time.monotonic() < self._quiet_until_s:
            return False
        more = {"unfinished": [unfinished]} if unfinished is not None else {}
        timeout_s = min(timeout_s, self._timeout_s)
        self._asked.append((tick, self._service.act_async([observation], timeout_s=timeout_s, **more)))
        return True

    def answers(self) -> list[Answer]:
        """Returns the chunks that have arrived since the last call, oldest question first; never waits.

        Raises:
            HiorsError: An error that asking again cannot mend.
        """
        arrived = [(tick, future) for tick, future in self._asked if future.done()]
        self._asked = [(tick, future) for tick, future in self._asked if not future.done()]
        answers = []
        for tick, future in arrived:
            try:
                [chunk] = future.result()
            except DeadlineExceeded as exc:  # It has waited long enough: a lost answer must not cost another one.
                self._note_failure(exc)
            except TEMPORARY as exc:
                self._quiet_until_s = time.monotonic() + RETRY_AFTER_S
                self._note_failure(exc)
            else:
                self._note_answer(chunk)
                answers.append(Answer(tick=tick, chunk=chunk))
        return answers

    @property
    def num_under_way(self) -> int:
        """Questions of `ask` without an answer yet."""
        return len(self._asked)

    def forget(self) -> None:
        """Drops the requests that are under way."""
        for _, future in self._asked:
            future.cancel()
        self._asked.clear()
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _note_failure(self, error: Exception) -> None:
        self.num_failures += 1
        now = time.monotonic()
        self._away_since = self._away_since or now
        waited_s = now - self._away_since
        if not self._has_answered and 0 < self._wait_for_policy_s <= waited_s:
            raise DeadlineExceeded(
                f"No policy answered within actor.wait_for_policy_s={self._wait_for_policy_s:g} s: {error} "
                "Start the learner, or check ip=... and transport.request_port."
            ) from error
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            self._has_complained = True
            logger.warning("No actions from the learner for %.0f s: %s Still asking.", waited_s, error)

    def figures(self) -> dict[str, float]:
        """Returns failed questions, and percentiles of the newest round trips in milliseconds."""
        figures = {"num_failed_requests": float(self.num_failures)}
        if self._round_trips_ms:
            p50, p99 = np.percentile(list(self._round_trips_ms), [50, 99])
            figures |= {"round_trip_ms_p50": round(float(p50), 2), "round_trip_ms_p99": round(float(p99), 2)}
        return figures

    def _note_answer(self, chunk: ActionChunk) -> None:
        if "round_trip" in chunk.timings_ms:
            self._round_trips_ms.append(chunk.timings_ms["round_trip"])
        if self._away_since is not None and self._has_complained:
            logger.info("The learner answers again after %.0f s.", time.monotonic() - self._away_since)
        self._away_since = None
        self._has_complained = False
        self._has_answered = True
