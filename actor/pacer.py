"""Keeps the control loop at the robot's rate, on the monotonic clock."""

import time
from dataclasses import dataclass

from robot_infra.clock import TickClock
from robot_infra.interfaces import RobotEnv, keeps_time


@dataclass(slots=True)
class Pacer:
    """Ends every tick at its time; a tick that came late is counted and the schedule starts anew from it."""

    period_s: float
    """Seconds per tick; 0: as fast as possible."""
    num_late: int = 0
    _tick_ends_at: float = 0.0

    def start(self) -> None:
        """Begins the first tick now."""
        self._tick_ends_at = time.monotonic() + self.period_s

    def finish_tick(self) -> None:
        """Sleeps until the current tick is over."""
        if self.period_s == 0:
            return
        left_s = self._tick_ends_at - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
            self._tick_ends_at += self.period_s
        else:
            self.num_late += 1
            self.start()


def num_late_ticks(env: RobotEnv, pacer: Pacer) -> int:
    """Returns how many ticks came late, as whoever ends them counted: a robot that keeps its own time, or the pacer."""
    clock = getattr(env, "clock", None) if keeps_time(env) else None
    return clock.num_late if isinstance(clock, TickClock) else pacer.num_late
