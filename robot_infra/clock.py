"""The tick of a robot that keeps its own time: sensors are read at its end, right before the next decision."""

import time
from collections import deque
from dataclasses import dataclass, field

MAX_REMEMBERED = 10_000
EARLY_S, EARLY_SHARE = 0.002, 0.1
"""So long before the end of a tick, and never more than this share of it, sleep gives way to looking at the clock: a
process that sleeps may be woken up late by a period of the system's scheduler (4 ms), and a late tick is worse than a
tenth of a core."""


@dataclass(slots=True)
class TickClock:
    """Ends each tick at its time on the monotonic clock; counts the ticks whose work took longer."""

    period_s: float
    num_ticks: int = 0
    num_late: int = 0
    lateness_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_REMEMBERED))
    """How long after its time each of the last ticks ended, in seconds."""
    work_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_REMEMBERED))
    """How much of each of the last ticks was over when its end was waited for, in seconds."""
    _ends_at: float = 0.0

    def start(self) -> None:
        """Begins the first tick now."""
        self._ends_at = time.monotonic() + self.period_s

    def wait(self) -> None:
        """Returns at the end of the tick. Call it right after the command.

        A tick whose work took longer is counted, and its command, which came late, gets a whole tick from now on: the
        next one does not follow it at once, which would drive the robot faster than either was made for.
        """
        left_s = self._ends_at - time.monotonic()
        self.work_s.append(self.period_s - left_s)
        if left_s <= 0:
            self.num_late += 1
            self.start()
        self._sleep_until_end()
        self.num_ticks += 1
        self.lateness_s.append(max(time.monotonic() - self._ends_at, -left_s))
        self._ends_at += self.period_s

    def _sleep_until_end(self) -> None:
        early_s = min(EARLY_S, EARLY_SHARE * self.period_s)
        time.sleep(max(self._ends_at - time.monotonic() - early_s, 0.0))
        while time.monotonic() < self._ends_at:
            pass
