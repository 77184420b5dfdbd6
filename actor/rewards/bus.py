"""Where every source of rewards posts its verdict, from any thread, and the control loop takes it.

A verdict that is posted while an episode runs ends it with that outcome. One that is posted between episodes is a late
label of the episode before; one with `corrects_last=True` corrects that label, whatever runs now.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from serl_launcher.types import Outcome

HUMAN = "human"
"""Who vetoes every other judge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What somebody says about an episode.

    Example:
        Verdict(outcome=Outcome.SUCCESS, by="human")
    """

    outcome: Outcome
    by: str
    """`human`, `classifier`, `process`, `environment` or `script`."""
    corrects_last: bool = False
    """Whether it is about the episode before the running one."""
    monotonic_s: float = field(default_factory=time.monotonic)


class RewardBus:
    """Verdicts on their way to the control loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Verdict | None = None
        self._late: deque[Verdict] = deque(maxlen=100)
        self._is_running = False

    def post(self, verdict: Verdict) -> None:
        """Says something; the newest counts, but a person's verdict is never overruled by another's. Never blocks."""
        with self._lock:
            if verdict.corrects_last or not self._is_running:
                self._late.append(verdict)
            elif self._now is None or self._now.by != HUMAN or verdict.by == HUMAN:
                self._now = verdict

    def begin(self) -> None:
        """An episode begins: verdicts are about it from now on."""
        with self._lock:
            self._is_running, self._now = True, None

    def end(self) -> None:
        """The episode is over: verdicts are late from now on."""
        with self._lock:
            if self._now is not None:
                self._late.append(self._now)
            self._is_running, self._now = False, None

    def take(self) -> Verdict | None:
        """Returns the newest verdict on the running episode once; None where nobody said anything."""
        with self._lock:
            verdict, self._now = self._now, None
            return verdict

    def take_late(self) -> list[Verdict]:
        """Returns the verdicts on the episode before, oldest first, once."""
        with self._lock:
            verdicts = list(self._late)
            self._late.clear()
            return verdicts
