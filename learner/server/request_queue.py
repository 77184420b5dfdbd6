"""Requests that wait for the policy, and which of them share a call.

A batch waits for others only while somebody who asked lately is missing from it: one robot alone never waits.
"""

import queue
import time

from learner.server.inference_metrics import actor_of
from learner.server.requests import Request

_IDLE_S = 0.2
_LATELY_S = 5.0
"""Whoever asked within this time is expected to ask again."""


class RequestQueue:
    """Any thread puts requests in, one thread gathers them."""

    def __init__(self, *, max_batch: int, max_wait_ms: float) -> None:
        """Makes batches of at most `max_batch` observations; the first waits at most `max_wait_ms` for others."""
        self.max_batch = max_batch
        self._max_wait_s = 1e-3 * max_wait_ms
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._postponed: Request | None = None
        self._asked_s: dict[str, float] = {}
        self.is_idle = False
        """Whether the thread that gathers waits for a first request."""

    def put(self, request: Request) -> None:
        """Adds a request; never blocks."""
        self._requests.put(request)

    def qsize(self) -> int:
        """Returns about how many wait."""
        return self._requests.qsize()

    def gather(self) -> list[Request]:
        """Returns requests that share a policy call, none after a while without any."""
        first = self._postponed or self._first()
        self._postponed = None
        if first is None:
            return []
        batch, size = [first], len(first)
        missing = self._expected() - {actor_of(first.key)}
        until = time.monotonic() + self._max_wait_s
        while size < self.max_batch:
            request = self._next(max(until - time.monotonic(), 0.0) if missing else 0.0)
            if request is None:
                break
            missing.discard(actor_of(request.key))
            if size + len(request) > self.max_batch:
                self._postponed = request
                break
            batch.append(request)
            size += len(request)
        return batch

    def drain(self) -> list[Request]:
        """Takes out all that waits."""
        left = [] if self._postponed is None else [self._postponed]
        self._postponed = None
        while not self._requests.empty():
            left.append(self._requests.get())
        return left

    def _first(self) -> Request | None:
        self.is_idle = True
        try:
            return self._next(_IDLE_S)
        finally:
            self.is_idle = False

    def _next(self, timeout_s: float) -> Request | None:
        try:
            request = self._requests.get(timeout=timeout_s) if timeout_s > 0 else self._requests.get_nowait()
        except queue.Empty:
            return None
        self._asked_s[actor_of(request.key)] = request.arrived_s
        return request

    def _expected(self) -> set[str]:
        """Returns who asked lately."""
        since = time.monotonic() - _LATELY_S
        self._asked_s = {actor: at_s for actor, at_s in self._asked_s.items() if at_s >= since}
        return set(self._asked_s)
