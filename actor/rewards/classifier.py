"""Verdicts by a success classifier, with hysteresis: one false positive must not end an episode as a success."""

from collections import deque
from collections.abc import Callable

from actor.rewards.bus import RewardBus, Verdict
from serl_launcher.types import Observation, Outcome


class ClassifierWatcher:
    """Posts success when `num_positive` of the last `window` pictures reach the threshold."""

    def __init__(
        self,
        probability: Callable[[Observation], float],
        bus: RewardBus,
        *,
        threshold: float,
        num_positive: int,
        window: int,
    ) -> None:
        """Takes the probability of success that a classifier sees in an observation."""
        self._probability, self._bus = probability, bus
        self._threshold, self._num_positive = threshold, num_positive
        self._votes: deque[bool] = deque(maxlen=window)

    def begin(self) -> None:
        """Forgets the pictures of the episode before."""
        self._votes.clear()

    def look(self, observation: Observation) -> None:
        """Judges what came of the last action."""
        self._votes.append(self._probability(observation) >= self._threshold)
        if sum(self._votes) >= self._num_positive:
            self._bus.post(Verdict(outcome=Outcome.SUCCESS, by="classifier"))
            self._votes.clear()
