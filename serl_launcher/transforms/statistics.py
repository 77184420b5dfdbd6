"""Normalisation of samples with the statistics of a dataset, in numpy; openpi's formulas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from serl_launcher.transforms.group import Sample

EPSILON = 1e-6
Kind = Literal["zscore", "quantile"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorStats:
    """Statistics of one key over a dataset, each [width]; quantiles where they are known."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray | None = None
    q99: np.ndarray | None = None

    def quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns q01 and q99; raises ValueError where they are missing."""
        if self.q01 is None or self.q99 is None:
            raise ValueError("Quantile normalisation needs q01 and q99; compute the statistics again.")
        return self.q01, self.q99


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalize:
    """Maps the keys that have statistics to the model's scale; keys without, and absent ones, stay as they are."""

    stats: Mapping[str, VectorStats]
    kind: Kind = "zscore"

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample at the model's scale; statistics are cut to the width of the values."""
        changed = {key: self._of(sample[key], stats) for key, stats in self.stats.items() if key in sample}
        return {**sample, **changed}

    def _of(self, values: np.ndarray, stats: VectorStats) -> np.ndarray:
        width = values.shape[-1]
        if self.kind == "zscore":
            return (values - stats.mean[:width]) / (stats.std[:width] + EPSILON)
        low, high = (quantile[:width] for quantile in stats.quantiles())
        return (values - low) / (high - low + EPSILON) * 2.0 - 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Unnormalize:
    """Inverse of `Normalize`. Every key that has statistics must be there."""

    stats: Mapping[str, VectorStats]
    kind: Kind = "zscore"

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample at the robot's scale; dimensions wider than the statistics stay as they are."""
        missing = self.stats.keys() - sample.keys()
        if missing:
            raise KeyError(f"Expected {sorted(self.stats)} to undo the normalisation, {sorted(missing)} are missing.")
        return {**sample, **{key: self._of(sample[key], stats) for key, stats in self.stats.items()}}

    def _of(self, values: np.ndarray, stats: VectorStats) -> np.ndarray:
        width = min(values.shape[-1], len(stats.mean))
        known, rest = values[..., :width], values[..., width:]
        if self.kind == "zscore":
            # Mean 0, deviation 1 beyond the statistics: the same epsilon as on the way in.
            return np.concatenate(
                [known * (stats.std[:width] + EPSILON) + stats.mean[:width], rest * (1 + EPSILON)], -1
            )
        low, high = (quantile[:width] for quantile in stats.quantiles())
        return np.concatenate([(known + 1.0) / 2.0 * (high - low + EPSILON) + low, rest], axis=-1)
