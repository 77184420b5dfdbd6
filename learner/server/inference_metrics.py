"""What is measured of inference: how much, how long, how late, for whom."""

import time
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

_WINDOW = 1000
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the histogram of batch sizes."""


def _window() -> "deque[float]":
    return deque(maxlen=_WINDOW)


@dataclass(kw_only=True, slots=True)
class InferenceMetrics:
    """Counts since the start and the newest durations. One thread writes, any may read."""

    num_answered: int = 0
    """Observations answered."""
    num_expired: int = 0
    """Observations whose deadline passed in the queue; they were not computed."""
    num_calls: int = 0
    """Policy calls that succeeded."""
    num_failed_calls: int = 0
    """Policy calls that raised or gave numbers that are not finite."""
    num_refused: int = 0
    """Observations that were answered with an error of the policy."""
    model_ms: float = 0.0
    """Duration of the last policy call."""
    batch_sizes: Counter[int] = field(default_factory=Counter)
    """Policy calls by number of observations."""
    deadline_misses: Counter[str] = field(default_factory=Counter)
    """Observations per actor that expired, or were answered after their deadline."""
    swapped_s: float | None = None
    """Monotonic time at which the weights in force were taken over."""
    _model_ms: "deque[float]" = field(default_factory=_window)
    _queue_ms: "deque[float]" = field(default_factory=_window)
    _service_ms: "deque[float]" = field(default_factory=_window)

    def note_call(self, size: int, model_ms: float) -> None:
        """Counts one policy call on `size` observations."""
        self.num_calls += 1
        self.model_ms = model_ms
        self.batch_sizes[size] += 1
        self._model_ms.append(model_ms)

    def note_answer(self, key: Hashable, *, size: int, queue_ms: float, service_ms: float, is_late: bool) -> None:
        """Counts one answered request; `service_ms` is from its arrival to its answer."""
        self.num_answered += size
        self._queue_ms.append(queue_ms)
        self._service_ms.append(service_ms)
        if is_late:
            self.deadline_misses[actor_of(key)] += size

    def note_expired(self, key: Hashable, size: int) -> None:
        """Counts one request that nobody waits for any more."""
        self.num_expired += size
        self.deadline_misses[actor_of(key)] += size

    def figures(self, queue_depth: int) -> dict[str, float]:
        """Returns all of it as named numbers; percentiles are over the newest 1000."""
        age_s = 0.0 if self.swapped_s is None else time.monotonic() - self.swapped_s
        num_calls = max(self.num_calls, 1)
        return {
            "num_answered": self.num_answered,
            "num_expired": self.num_expired,
            "num_calls": self.num_calls,
            "num_failed_calls": self.num_failed_calls,
            "num_refused": self.num_refused,
            "num_deadline_misses": sum(self.deadline_misses.values()),
            "queue_depth": queue_depth,
            "batch_size_mean": round(sum(size * n for size, n in dict(self.batch_sizes).items()) / num_calls, 3),
            "model_ms": round(self.model_ms, 2),
            "policy_age_s": round(age_s, 2),
            **_percentiles("model_ms", self._model_ms),
            **_percentiles("queue_ms", self._queue_ms),
            **_percentiles("service_ms", self._service_ms),
        }


def actor_of(key: Hashable) -> str:
    """Returns who asked: requests of the gateway are keyed by actor and number."""
    return str(key[0]) if isinstance(key, tuple) else str(key)


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    newest = list(values)
    if not newest:
        return {}
    p50, p99 = np.percentile(newest, [50, 99])
    return {f"{name}_p50": round(float(p50), 2), f"{name}_p99": round(float(p99), 2)}
