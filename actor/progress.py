"""How far an actor has come. Kept in one small file, so that a killed actor goes on where it was."""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from serl_launcher.files import write_atomic
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)

WINDOW = 50
"""Episodes that are remembered one by one."""
RECENT = 20


class EpisodeSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One finished episode in a line."""

    number: int
    outcome: Outcome
    num_steps: int
    num_human_steps: int
    num_takeovers: int
    policy_version: int
    """Newest weights that acted; -1 where none did."""
    duration_s: float


class _Persisted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    num_started: int = 0
    num_finished: int = 0
    num_steps: int = 0
    recent: list[EpisodeSummary] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class Progress:
    """Counts episodes and remembers the last ones.

    Numbers are given out once: the file knows a number before its episode begins.
    """

    path: Path
    num_started: int = 0
    """Episodes begun; the next one gets this number."""
    num_finished: int = 0
    """Episodes that came to an end other than being aborted."""
    num_steps: int = 0
    """Recorded steps of finished and aborted episodes."""
    recent: deque[EpisodeSummary] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """The last finished episodes, oldest first."""
    _num_running: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """Several lanes count together."""

    @classmethod
    def load(cls, path: Path) -> "Progress":
        """Returns the progress in that file, or a fresh one where there is none or it is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Persisted)
        except FileNotFoundError:
            return cls(path)
        except msgspec.MsgspecError as exc:
            logger.warning("Progress file %s is damaged (%s); episodes are numbered from 0 again.", path, exc)
            return cls(path)
        return cls(path, kept.num_started, kept.num_finished, kept.num_steps, deque(kept.recent, maxlen=WINDOW))

    def claim(self, num_episodes: int) -> bool:
        """Returns whether another episode may begin, of so many finished ones (0: any number); `release` ends it."""
        with self._lock:
            is_wanted = num_episodes == 0 or self.num_finished + self._num_running < num_episodes
            self._num_running += is_wanted
            return is_wanted

    def release(self) -> None:
        """The claimed episode is over, finished or not."""
        with self._lock:
            self._num_running -= 1

    def next_number(self) -> int:
        """Returns the number of the next episode and gives it out for ever."""
        with self._lock:
            number = self.num_started
            self.num_started += 1
            self._save()
        return number

    def finish(self, episode: EpisodeSummary) -> None:
        """Counts an episode that ended; an aborted one adds only its steps."""
        with self._lock:
            self.num_steps += episode.num_steps
            if episode.outcome is not Outcome.ABORTED:
                self.num_finished += 1
                self.recent.append(episode)
            self._save()

    def relabel(self, number: int, outcome: Outcome) -> None:
        """Corrects how a finished episode went, where it is remembered."""
        for index, episode in enumerate(self.recent):
            if episode.number == number:
                self.recent[index] = msgspec.structs.replace(episode, outcome=outcome)
                self._save()

    def success_rate(self, num_episodes: int = RECENT) -> float:
        """Returns the share of successes among the last episodes; 0 where there are none."""
        last = list(self.recent)[-num_episodes:]
        return sum(episode.outcome is Outcome.SUCCESS for episode in last) / max(len(last), 1)

    def intervention_rate(self, num_episodes: int = RECENT) -> float:
        """Returns the share of steps that the person commanded in the last episodes."""
        last = list(self.recent)[-num_episodes:]
        return sum(episode.num_human_steps for episode in last) / max(sum(episode.num_steps for episode in last), 1)

    def takeover_rate(self, num_episodes: int = RECENT) -> float:
        """Returns the share of the last episodes in which the person took over."""
        last = list(self.recent)[-num_episodes:]
        return sum(episode.num_takeovers > 0 for episode in last) / max(len(last), 1)

    def human_s(self, num_episodes: int = RECENT) -> float:
        """Returns for how many seconds of the last episodes the person was in control, by their share of the steps."""
        last = list(self.recent)[-num_episodes:]
        return sum(episode.duration_s * episode.num_human_steps / max(episode.num_steps, 1) for episode in last)

    def steps_per_s(self, num_episodes: int = RECENT) -> float:
        """Returns recorded steps per second of the last episodes, waiting included."""
        last = list(self.recent)[-num_episodes:]
        duration_s = sum(episode.duration_s for episode in last)
        return sum(episode.num_steps for episode in last) / duration_s if duration_s > 0 else 0.0

    def values(self) -> dict[str, float | int | str]:
        """Returns what the learner and the status file are told."""
        last, recent = self.recent[-1] if self.recent else None, list(self.recent)[-20:]
        return {
            "num_episodes": self.num_finished,
            "num_started": self.num_started,
            "num_steps": self.num_steps,
            "success_rate_20": self.success_rate(20),
            "success_rate_50": self.success_rate(50),
            "intervention_rate_20": self.intervention_rate(20),
            "takeover_rate_20": self.takeover_rate(20),
            "num_takeovers_20": sum(episode.num_takeovers for episode in recent),
            "num_human_steps_20": sum(episode.num_human_steps for episode in recent),
            "human_s_20": self.human_s(20),
            "steps_per_s": self.steps_per_s(),
            "policy_version": last.policy_version if last else -1,
            "last_outcome": last.outcome.value if last else "",
        }

    def _save(self) -> None:
        kept = _Persisted(
            num_started=self.num_started,
            num_finished=self.num_finished,
            num_steps=self.num_steps,
            recent=list(self.recent),
        )
        try:
            write_atomic(self.path, msgspec.json.encode(kept), sync=False)
        except OSError as exc:  # After a restart the session number keeps episode ids apart all the same.
            logger.warning("The progress file %s cannot be written: %s", self.path, exc)


def describe(progress: Progress) -> str:
    """Returns the story so far in one line for the terminal."""
    last = progress.recent[-1] if progress.recent else None
    if last is None:
        return "No episode finished yet."
    return (
        f"Episode {last.number}: {last.outcome} in {last.num_steps} steps, {last.num_human_steps} by the person. "
        f"Last {min(len(progress.recent), RECENT)}: {progress.success_rate():.0%} success, "
        f"{progress.intervention_rate():.0%} of steps by the person. "
        f"Policy {last.policy_version}, {progress.steps_per_s():.0f} steps/s."
    )


@dataclass(slots=True)
class Throttle:
    """Lets something happen at most once per period."""

    period_s: float
    _due_at: float = 0.0

    def is_due(self) -> bool:
        """Returns True at most once per period, and then starts the next one."""
        now = time.monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + self.period_s
        return True
