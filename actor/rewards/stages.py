"""Rewards of progress: what a step brings nearer to the last of several stages (Hi-ORS's `process`)."""

from collections import deque
from collections.abc import Callable, Sequence

from actor.rewards.bus import RewardBus, Verdict
from serl_launcher.types import Observation, Outcome

Seen = tuple[Callable[[Observation], float], float]
"""Probability that a stage is reached, and the threshold from which it counts."""


class StageRewards:
    """Each step earns the stages gained, and loses those lost; the last stage ends the episode as a success.

    A stage is reached where `num_positive` of the last `window` pictures show it; the highest one counts:
    reward = stage now - stage before.
    """

    def __init__(self, stages: Sequence[Seen], bus: RewardBus, *, num_positive: int, window: int) -> None:
        """Takes the stages in their order; stage 0, the beginning, needs no classifier."""
        self._stages, self._bus, self._num_positive = stages, bus, num_positive
        self._votes: list[deque[bool]] = [deque(maxlen=window) for _ in stages]
        self._stage = 0
        self.reward = 0.0

    def begin(self) -> None:
        """Goes back to stage 0."""
        for votes in self._votes:
            votes.clear()
        self._stage, self.reward = 0, 0.0

    def look(self, observation: Observation) -> None:
        """Finds the stage that the last action led to."""
        for votes, (probability, threshold) in zip(self._votes, self._stages, strict=True):
            votes.append(probability(observation) >= threshold)
        reached = [number for number, votes in enumerate(self._votes, 1) if sum(votes) >= self._num_positive]
        stage = max(reached, default=0)
        self.reward, self._stage = float(stage - self._stage), stage
        if stage == len(self._stages):
            self._bus.post(Verdict(outcome=Outcome.SUCCESS, by="process"))
