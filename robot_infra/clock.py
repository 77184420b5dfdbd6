"""The tick of a robot that keeps its own time: sensors are read at its end, right before the next decision."""

import time
from collections import deque
from dataclasses import dataclass, field

MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class TickClock:
    """Ends each tick at its time on the monotonic clock; counts the ticks that came too late."""

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
        """Sleeps until the tick is over; a tick that is over already is counted, and time starts anew from it."""
        left_s = self._ends_at - time.monotonic()
        self.work_s.append(self.period_s - left_s)
        if left_s > 0:
            time.sleep(left_s)
        self.num_ticks += 1
        late_s = time.monotonic() - self._ends_at
        self.lateness_s.append(late_s)
        if left_s <= 0:
            self.num_late += 1
            self.start()
        else:
            self._ends_at += self.period_s
