"""Requests that wait for an answer: each ends by its answer, by an error, or by its deadline."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serl_launcher.errors import DeadlineExceeded, HiorsError, ProtocolError
from serl_launcher.transport.messages import Act, ActReply, Fetch, FetchReply

T = TypeVar("T")

Answer = ActReply | FetchReply


@dataclass(kw_only=True, slots=True)
class Request(Generic[T]):
    """One question to the learner."""

    make_header: Callable[[int, float], Act | Fetch]
    """Takes the request id and the milliseconds left."""
    frames: Sequence[bytes]
    read: Callable[[Answer, Sequence[bytes]], T]
    """Makes the result of the answer; raises HiorsError where it makes no sense."""
    deadline_s: float
    """Monotonic time."""
    what: str
    future: "Future[T]" = field(default_factory=Future)
    is_sent: bool = False


class RequestTable:
    """All requests under way. May be used from any thread."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, request: Request[T]) -> "Future[T]":
        """Queues a request; returns the future of its result, which nobody can cancel."""
        request.future.set_running_or_notify_cancel()
        with self._lock:
            self._requests[next(self._ids)] = request
        return request.future

    def unsent(self) -> list[tuple[int, Request]]:
        """Returns what is to be sent, oldest first."""
        with self._lock:
            return [(request_id, request) for request_id, request in self._requests.items() if not request.is_sent]

    def send_again(self, request_id: int | None = None) -> None:
        """Marks one request, or all of them, as not sent: the connection was lost or not yet known."""
        with self._lock:
            for each_id, request in self._requests.items():
                if request_id in (None, each_id):
                    request.is_sent = False

    def answer(self, answer: Answer, frames: Sequence[bytes]) -> None:
        """Ends the request that is answered; late answers are dropped."""
        request = self._pop(answer.request_id)
        if request is None:
            return
        try:
            result = request.read(answer, frames)
        except HiorsError as exc:
            request.future.set_exception(exc)
        except Exception as exc:  # Whoever waits must hear of it, and the thread that reads answers must go on.
            unreadable = ProtocolError(f"The answer to {request.what} cannot be read: {type(exc).__name__}: {exc}")
            unreadable.__cause__ = exc
            request.future.set_exception(unreadable)
        else:
            request.future.set_result(result)

    def fail(self, request_id: int, error: HiorsError) -> None:
        """Ends one request with an error."""
        request = self._pop(request_id)
        if request is not None:
            request.future.set_exception(error)

    def fail_all(self, error: HiorsError) -> None:
        """Ends every request with an error."""
        with self._lock:
            requests, self._requests = list(self._requests.values()), {}
        for request in requests:
            request.future.set_exception(error)

    def expire(self, reason: str) -> None:
        """Ends the requests whose deadline has passed; `reason` says how the connection is."""
        now = time.monotonic()
        with self._lock:
            expired = [request_id for request_id, request in self._requests.items() if request.deadline_s <= now]
        for request_id in expired:
            request = self._pop(request_id)
            if request is not None:
                request.future.set_exception(DeadlineExceeded(f"No answer in time to {request.what}: {reason}"))

    def seconds_left(self) -> float:
        """Returns the time to the nearest deadline, infinite where nothing is under way."""
        with self._lock:
            nearest = min((request.deadline_s for request in self._requests.values()), default=float("inf"))
        return nearest - time.monotonic()

    def _pop(self, request_id: int) -> Request | None:
        with self._lock:
            return self._requests.pop(request_id, None)
