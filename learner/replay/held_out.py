"""Episodes that are measured, never drawn: whether the loss still falls on what was not learned.

Legend: E episodes, N steps.
"""

import numpy as np

from learner.replay.batch import Batch, concatenate
from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from learner.replay.views import StepWeights

_GOLDEN = 0.6180339887498949


def is_held_out(num_episodes: int, fraction: float) -> np.ndarray:
    """Returns which episodes are held out, bool [E]: evenly spread, and the same however many follow later.

    Episode e is held out where the golden-ratio sequence (e + 1) * phi mod 1 reaches 1 - `fraction`.
    """
    places = np.mod((np.arange(num_episodes) + 1) * _GOLDEN, 1.0)
    return places >= 1.0 - fraction if fraction > 0 else np.zeros(num_episodes, bool)


def drawn_only(weigh: StepWeights, fraction: float) -> StepWeights:
    """Returns the rule without the held-out episodes; the rule itself where `fraction` is 0."""
    if fraction <= 0:
        return weigh
    return lambda dataset: weigh(dataset) * ~is_held_out(dataset.num_episodes, fraction)[dataset.steps.episode]


class HeldOut:
    """A fixed selection of held-out steps, the same at every measurement until episodes are added."""

    def __init__(self, rules: list[tuple[ChunkSampler, StepWeights]], *, fraction: float, num_samples: int) -> None:
        """Measures up to `num_samples` steps that the rules of all sources would draw from held-out episodes."""
        self._rules = rules
        self._fraction = fraction
        self._num_samples = num_samples
        self._revisions: list[int] = []

    def refreshed(self) -> Batch | None:
        """Returns the samples where they changed since the last call; None where not, or where there are none."""
        revisions = [sampler.dataset.revision for sampler, _ in self._rules]
        if self._fraction <= 0 or revisions == self._revisions:
            return None
        self._revisions = revisions
        steps = [(sampler, self._steps(sampler.dataset, weigh)) for sampler, weigh in self._rules]
        total = sum(len(found) for _, found in steps)
        if not total:
            return None
        stride = max(total / self._num_samples, 1.0)
        parts = [sampler.sample(found[np.arange(0, len(found), stride).astype(np.int64)]) for sampler, found in steps
                 if len(found)]  # fmt: skip
        return concatenate(parts)

    def _steps(self, dataset: ReplayDataset, weigh: StepWeights) -> np.ndarray:
        held_out = is_held_out(dataset.num_episodes, self._fraction)[dataset.steps.episode]
        return np.flatnonzero(held_out & (weigh(dataset) > 0))
