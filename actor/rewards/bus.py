"""Where every source of rewards posts its verdict, from any thread, and the control loop takes it.

A verdict that is posted while an episode runs ends it with that outcome. One that is posted between episodes is a late
label of the episode before; one with `corrects_last=True` corrects that label, whatever runs now. Which episode a late
verdict is about is decided when it is posted: the person judges what was just seen.
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
        self._late: deque[tuple[int, Verdict]] = deque(maxlen=100)
        """With the number of the episode that each is about."""
        self._is_running = False
        self._number = 0
        """Of the newest episode, counted by `begin`."""

    def post(self, verdict: Verdict) -> None:
        """Says something; the newest counts, but a person's verdict is never overruled by another's. Never blocks.

        Only a person says something about an episode that is over: a classifier that still looks on while the robot
        comes to rest does not.
        """
        with self._lock:
            if not self._is_running:
                self._note_late(self._number, verdict)
            elif verdict.corrects_last:
                self._note_late(self._number - 1, verdict)
            elif self._now is None or self._now.by != HUMAN or verdict.by == HUMAN:
                self._now = verdict

    def begin(self) -> None:
        """An episode begins: verdicts are about it from now on."""
        with self._lock:
            self._is_running, self._now = True, None
            self._number += 1

    def defer(self) -> None:
        """Nothing of the running episode was to be seen so far: what was said is about the one before."""
        with self._lock:
            self._put_off(self._number - 1)

    def end(self) -> None:
        """The episode is over: verdicts are late from now on."""
        with self._lock:
            self._put_off(self._number)
            self._is_running = False

    def take(self) -> Verdict | None:
        """Returns the newest verdict on the running episode once; None where nobody said anything."""
        with self._lock:
            verdict, self._now = self._now, None
            return verdict

    def take_late(self, *, keep_newest: bool = False) -> list[Verdict]:
        """Returns the late verdicts, oldest first, once.

        Args:
            keep_newest: Whether those about the newest episode stay: it is over, but not written yet.
        """
        with self._lock:
            last = self._number - 1 if keep_newest else self._number
            taken = [verdict for number, verdict in self._late if number <= last]
            kept = [entry for entry in self._late if entry[0] > last]
            self._late.clear()
            self._late.extend(kept)
            return taken

    def _put_off(self, number: int) -> None:
        if self._now is not None:
            self._note_late(number, self._now)
        self._now = None

    def _note_late(self, number: int, verdict: Verdict) -> None:
        if verdict.by == HUMAN:
            self._late.append((number, verdict))
