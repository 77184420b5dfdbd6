"""Which start states of an evaluation are still to be played, and what came of those that were."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from actor.evaluation_report import EpisodeResult
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)

Attempt = tuple[int, int]
"""An episode and which attempt at it, from 1."""


@dataclass(kw_only=True, slots=True)
class Attempts:
    """Every start state is played, again after a failure where that is wanted, and again where it was cut off."""

    num_episodes: int
    num_attempts: int
    """A start state that was not solved is tried so many times."""
    waiting: deque[Attempt] = field(default_factory=deque)
    """What begins next, first the foremost."""
    results: list[EpisodeResult] = field(default_factory=list)
    """In the order in which they came."""
    _begun: set[Attempt] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting.extend((episode, 1) for episode in range(self.num_episodes))

    def begin(self) -> Attempt:
        """Returns what begins now."""
        attempt = self.waiting.popleft()
        self._begun.add(attempt)
        return attempt

    def put_back(self, attempt: Attempt) -> None:
        """What was to begin is to be played next."""
        self._begun.discard(attempt)
        self.waiting.appendleft(attempt)

    @property
    def is_last_unlabelled(self) -> bool:
        """Whether nobody judged the episode that ended last."""
        return bool(self.results) and self.results[-1].outcome is Outcome.UNLABELLED

    def finish(self, result: EpisodeResult) -> None:
        """Notes a result; what was cut off, or was not solved and may be tried again, is played next."""
        self.results.append(result)
        if result.outcome is Outcome.ABORTED:
            self.put_back((result.episode, result.attempt))
        else:
            self._plan_retry(result)

    def relabel(self, outcome: Outcome) -> bool:
        """Labels the episode that ended last; returns False where there is none that counts."""
        last = self.results[-1] if self.results else None
        if last is None or last.outcome is Outcome.ABORTED or outcome is Outcome.ABORTED:
            logger.warning("A verdict (%s) came where no evaluated episode had ended; it is dropped.", outcome)
            return False
        self.results[-1] = msgspec.structs.replace(last, outcome=outcome)
        self._plan_retry(self.results[-1])
        logger.info("Episode %d is now labelled %s.", last.episode, outcome)
        return True

    def num_aborted(self, attempt: Attempt) -> int:
        """Returns how often this attempt was cut off."""
        return sum(
            (result.episode, result.attempt) == attempt and result.outcome is Outcome.ABORTED
            for result in self.results
        )  # fmt: skip

    def in_order(self) -> Sequence[EpisodeResult]:
        """Returns the results in the order of the start states; cut-off ones before what came of them in the end."""
        return sorted(self.results, key=lambda result: (result.episode, result.attempt))

    def _plan_retry(self, result: EpisodeResult) -> None:
        again = (result.episode, result.attempt + 1)
        if again in self.waiting:
            self.waiting.remove(again)
        is_unsolved = result.outcome is not Outcome.UNLABELLED and not result.success
        if is_unsolved and result.attempt < self.num_attempts and again not in self._begun:
            self.waiting.appendleft(again)
