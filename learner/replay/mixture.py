"""Batches drawn from several sources in exact ratios."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.replay.batch import Batch, concatenate
from learner.replay.chunks import ChunkSampler
from learner.replay.views import StepWeights, View, all_steps
from serl_launcher.errors import DatasetError

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class MixtureSource:
    """One source of samples: which steps (view), how they are assembled (sampler) and their share of a batch."""

    name: str
    view: View
    sampler: ChunkSampler
    fraction: float
    """Share of the samples; the fractions of all sources are scaled to sum to 1."""
    rule: StepWeights = all_steps
    """What the view would draw if no episodes were held out."""

    def __post_init__(self) -> None:
        if self.fraction < 0:
            raise ValueError(f"Source {self.name!r}: expected a fraction >= 0, got {self.fraction}.")
        if self.view.dataset is not self.sampler.dataset:
            raise ValueError(f"Source {self.name!r}: its view and its sampler read different datasets.")


class Mixture:
    """Draws batches from sources in exact ratios, deterministic under a seed.

    A batch holds the nearest whole numbers of samples; what was rounded off is carried to the next batch, so that the
    ratio over many batches is exact. While a source has nothing to draw, the others take its share.
    """

    def __init__(
        self, sources: Sequence[MixtureSource], batch_size: int, seed: int, *, part: tuple[int, int] = (0, 1)
    ) -> None:
        """Draws batches of `batch_size` samples; raises ValueError where no source has a positive fraction.

        Of `part` = (number, count), only every count-th sample is assembled, from `number` on: ranks share a batch.
        """
        if batch_size < 1 or sum(source.fraction for source in sources) <= 0:
            raise ValueError(
                f"Expected a batch size >= 1 and a positive fraction, got {batch_size} and {list(sources)}."
            )
        self.sources = tuple(sources)
        self.batch_size = batch_size
        self._part = part
        self._rng = np.random.default_rng(seed)
        self._is_open = [False] * len(self.sources)
        self._carry = np.zeros(len(self.sources))

    @property
    def is_empty(self) -> bool:
        """Whether no source has a step to draw."""
        return not any(source.fraction > 0 and source.view.num_steps for source in self.sources)

    def counts(self) -> np.ndarray:
        """Returns how many samples the next batch takes of each source, int64, and carries the rest over.

        Raises:
            DatasetError: Every source is empty.
        """
        fractions = np.array([source.fraction * bool(source.view.num_steps) for source in self.sources])
        if not fractions.any():
            names = [source.name for source in self.sources]
            raise DatasetError(f"Every source of {names} is empty. Wait for accepted episodes or add demonstrations.")
        is_open = (fractions > 0).tolist()
        if is_open != self._is_open:
            self._is_open, self._carry = is_open, np.zeros(len(self.sources))
        ideal = fractions / fractions.sum() * self.batch_size + self._carry
        counts = _nearest_counts(ideal, self.batch_size)
        self._carry = ideal - counts
        return counts

    def draw(self) -> list[np.ndarray]:
        """Returns the next batch as steps per source, int64 each; deterministic under seed and datasets."""
        counts = self.counts()
        return [
            source.view.draw(self._rng, int(count)) if count else np.zeros(0, np.int64)
            for source, count in zip(self.sources, counts, strict=True)
        ]

    def sample(self) -> Batch:
        """Returns the next batch; samples of one source lie together, in the order of the sources.

        Raises:
            DatasetError: Every source is empty, or an image is damaged.
        """
        return self.assemble(self.draw())

    def assemble(self, drawn: list[np.ndarray]) -> Batch:
        """Returns the samples of a drawn batch, or of the part of it that is this rank's; see `sample`."""
        own = self._own(drawn)
        return concatenate(
            [source.sampler.sample(steps) for source, steps in zip(self.sources, own, strict=True) if len(steps)]
        )

    def _own(self, drawn: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the part of a drawn batch that this rank assembles."""
        number, count = self._part
        places = np.cumsum([0, *(len(steps) for steps in drawn)])
        return [steps[(number - place) % count :: count] for place, steps in zip(places, drawn, strict=False)]

    def state_dict(self) -> dict[str, object]:
        """Returns what makes the next batches the same, as JSON-compatible values."""
        return {"rng": self._rng.bit_generator.state, "carry": self._carry.tolist(), "is_open": list(self._is_open)}

    def load_state_dict(self, state: dict) -> None:
        """Continues where `state_dict` was taken; with other sources the random numbers alone go on."""
        self._rng.bit_generator.state = state["rng"]
        if len(state["carry"]) != len(self.sources):
            logger.warning(
                "The run continues with %d sources of samples instead of %d: %s.",
                len(self.sources), len(state["carry"]), ", ".join(source.name for source in self.sources),
            )  # fmt: skip
            return
        self._carry = np.array(state["carry"], np.float64)
        self._is_open = list(state["is_open"])


def _nearest_counts(ideal: np.ndarray, total: int) -> np.ndarray:
    """Returns whole numbers >= 0 that sum to `total`, nearest to `ideal` (which sums to it) by largest remainder."""
    counts = np.floor(ideal + 1e-9).astype(np.int64).clip(min=0)
    while counts.sum() < total:
        counts[np.argmax(ideal - counts)] += 1
    while counts.sum() > total:
        counts[np.argmin(np.where(counts > 0, ideal - counts, np.inf))] -= 1
    return counts
