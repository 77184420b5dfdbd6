"""How many ticks pass between a question to the policy and its answer.

An answer that took as long as a chunk lasts came too late whatever was planned: to plan for it would help nobody, and
would spoil the plan for the others. Whoever asks says how long a chunk lasts.
"""

import itertools
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

_ROUNDING = 1e-6
"""Of a tick: 350 ms are seven ticks of 50 ms, though not in binary fractions of a second."""


@dataclass(slots=True)
class LatencyEstimate:
    """The longest of the newest latencies: a plan that is too cautious only wastes actions, a bold one stands still."""

    tick_s: float
    """Seconds per tick."""
    window: int = 10
    """Answers that are remembered for the estimate."""
    long_window: int = 100
    """Answers that are remembered for the longest."""
    num_answers: int = 0
    _newest_s: "deque[float]" = field(default_factory=deque)
    _all_ms: "deque[float]" = field(default_factory=lambda: deque(maxlen=1000))

    def note(self, latency_s: float) -> None:
        """Counts one answer."""
        self.num_answers += 1
        self._newest_s.append(latency_s)
        self._all_ms.append(1e3 * latency_s)
        if len(self._newest_s) > self.window:
            self._newest_s.popleft()

    @property
    def ticks(self) -> int:
        """Ticks until the answer to a question asked now; 1 before the first answer."""
        return self._ticks_in(max(self._newest_s, default=0.0))

    def ticks_below(self, limit_ticks: int) -> int:
        """Returns `ticks` by the newest answers of less than `limit_ticks`, the limit where there are only others."""
        newest = [self._ticks_in(latency_s) for latency_s in self._newest_s] or [1]
        return max((ticks for ticks in newest if ticks < limit_ticks), default=limit_ticks)

    def longest_ticks_below(self, limit_ticks: int) -> int:
        """Returns what the slowest of many answers took: for this a robot must have actions left."""
        newest_ms = itertools.islice(reversed(self._all_ms), self.long_window)
        all_ticks = (self._ticks_in(1e-3 * latency_ms) for latency_ms in newest_ms)
        return max((ticks for ticks in all_ticks if ticks < limit_ticks), default=1)

    def figures(self) -> dict[str, float]:
        """Returns percentiles in milliseconds over the newest 1000 answers."""
        if not self._all_ms:
            return {}
        p50, p99 = np.percentile(list(self._all_ms), [50, 99])
        return {"latency_ms_p50": round(float(p50), 1), "latency_ms_p99": round(float(p99), 1)}

    def _ticks_in(self, latency_s: float) -> int:
        return max(1, math.ceil(latency_s / self.tick_s - _ROUNDING))
