"""Joins the questions of several lanes into one request: one message, one policy call."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from actor.policy_client import ActionService
from serl_launcher.types import ActionChunk, Observation, Unfinished


@dataclass(frozen=True, slots=True)
class _Question:
    observations: list[Observation]
    answer: Future[list[ActionChunk]]
    timeout_s: float
    asked_s: float


class BatchedActions:
    """Satisfies `actor.policy_client.ActionService` for all lanes, whose questions wait a few ms for each other."""

    def __init__(self, service: ActionService, *, num_lanes: int, max_wait_s: float = 0.005) -> None:
        """Asks `service` when all lanes have asked, or the first has waited for `max_wait_s`."""
        self._service, self._num_lanes, self._max_wait_s = service, num_lanes, max_wait_s
        self._changed = threading.Condition()
        self._waiting: list[_Question] = []
        self._is_closed = False
        self.num_requests = 0
        """Requests sent, however many lanes each was for."""
        self._thread = threading.Thread(target=self._run, name="batched-actions", daemon=True)
        self._thread.start()

    def act_async(
        self, observations: list[Observation], *, timeout_s: float, unfinished: Sequence[Unfinished | None] = ()
    ) -> Future[list[ActionChunk]]:
        """Returns at once; raises ValueError for real-time chunks, which robots ask for alone."""
        if unfinished:
            raise ValueError("Expected lanes that wait for their policy, got an unfinished chunk.")
        answer: Future[list[ActionChunk]] = Future()
        with self._changed:
            self._waiting.append(_Question(observations, answer, timeout_s, time.monotonic()))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Asks nothing any more; who waits is cancelled. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while (questions := self._next()) is not None:
            # A cancelled question is not asked; from here on it cannot be cancelled any more.
            asked = [question for question in questions if question.answer.set_running_or_notify_cancel()]
            if asked:
                self._ask(asked)

    def _next(self) -> list[_Question] | None:
        """Waits for the next questions; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._is_closed:
                left_s = self._waiting[0].asked_s + self._max_wait_s - time.monotonic()
                self._changed.wait_for(lambda: len(self._waiting) >= self._num_lanes or self._is_closed, max(left_s, 0))
            questions, self._waiting = self._waiting, []
            if self._is_closed:
                for question in questions:
                    question.answer.cancel()
                return None
            return questions

    def _ask(self, questions: list[_Question]) -> None:
        observations = [observation for question in questions for observation in question.observations]
        self.num_requests += 1

        def answer(done: Future[list[ActionChunk]]) -> None:
            error = done.exception()
            chunks = iter(done.result() if error is None else ())
            for question in questions:
                if error is not None:
                    question.answer.set_exception(error)
                else:
                    question.answer.set_result([next(chunks) for _ in question.observations])

        try:
            asked = self._service.act_async(observations, timeout_s=max(each.timeout_s for each in questions))
        except Exception as exc:  # Whatever is wrong is the lanes' business: each gets it and decides.
            for question in questions:
                question.answer.set_exception(exc)
            return
        asked.add_done_callback(answer)
