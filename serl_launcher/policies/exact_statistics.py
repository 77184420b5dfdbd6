"""Mean, deviation and quantiles of any number of vectors in bounded memory, exact to the last bit that float32 has.

Quantiles are found by radix selection: a first pass counts the upper 16 bits of every number's place in the order of
all float32 numbers; a second counts the lower 16 bits of those numbers whose upper bits a quantile fell on.

Legend: N rows, D width.
"""

import numpy as np
from jaxtyping import Float, Int, UInt32
from numpy import ndarray

from serl_launcher.policies.normalization import NormStats

QUANTILES = (0.01, 0.99)
_BUCKETS = 1 << 16


class ExactStatistics:
    """Statistics of weighted rows that are shown twice.

    show every row -> next_pass() -> show every row again, in any order -> result()
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)
        self._upper = np.zeros((width, _BUCKETS), np.int64)
        self._lower: np.ndarray | None = None
        self._targets = np.zeros((0, width), np.int64)

    def add(self, rows: Float[ndarray, "N D"], weights: Int[ndarray, " N"] | None = None) -> None:
        """Counts rows of float32, each as often as its weight (once)."""
        if not len(rows):
            return
        rows = np.asarray(rows, np.float32)
        if self._lower is None:
            self._add_moments(rows.astype(np.float64), weights)
        keys = _sortable(np.ascontiguousarray(rows.T))
        for dimension, upper in enumerate(keys >> 16):
            if self._lower is None:
                self._upper[dimension] += _histogram(upper, weights)
            else:
                self._add_lower(dimension, keys[dimension], upper=upper, weights=weights)

    def next_pass(self) -> None:
        """Ends the first pass; raises ValueError where it saw nothing."""
        if not self.count:
            raise ValueError("Expected at least one row to compute statistics from, got none.")
        self._targets = np.array(
            [[_bucket_of(histogram, rank)[0] for histogram in self._upper] for rank in self._ranks()], np.int64
        )
        self._lower = np.zeros((len(self._targets), self.width, _BUCKETS), np.int64)

    def result(self) -> NormStats:
        """Returns the statistics of every row, as numpy computes them; raises ValueError before the second pass."""
        if self._lower is None or self._lower[0, 0].sum() == 0:
            raise ValueError("Expected every row twice, with next_pass() in between; the second pass saw none.")
        values = [self._value_at(number, rank) for number, rank in enumerate(self._ranks())]
        low, high = (
            _between(values[2 * number], values[2 * number + 1], quantile * (self.count - 1) % 1)
            for number, quantile in enumerate(QUANTILES)
        )
        return NormStats(
            mean=self._mean.tolist(),
            std=np.sqrt(self._squares / self.count).tolist(),
            q01=low.tolist(),
            q99=high.tolist(),
        )

    def _add_lower(
        self, dimension: int, keys: UInt32[ndarray, " N"], *, upper: UInt32[ndarray, " N"], weights: ndarray | None
    ) -> None:
        """Counts the lower bits of the numbers in the buckets that are wanted; neighbours often share theirs."""
        assert self._lower is not None
        targets = self._targets[:, dimension]
        for target in np.unique(targets):
            chosen = np.flatnonzero(upper == target)
            histogram = _histogram(keys[chosen] & 0xFFFF, None if weights is None else weights[chosen])
            self._lower[targets == target, dimension] += histogram

    def _ranks(self) -> list[int]:
        """Returns the two places in the order between which each quantile lies."""
        lower = [int(quantile * (self.count - 1)) for quantile in QUANTILES]
        return [min(rank + step, self.count - 1) for rank in lower for step in (0, 1)]

    def _add_moments(self, rows: Float[ndarray, "N D"], weights: Int[ndarray, " N"] | None) -> None:
        """Merges the moments of a batch into those so far (Chan et al. 1979)."""
        count = len(rows) if weights is None else int(weights.sum())
        mean = rows.mean(axis=0) if weights is None else weights @ rows / count
        deviations = (rows - mean) ** 2
        squares = deviations.sum(axis=0) if weights is None else weights @ deviations
        total = self.count + count
        distance = mean - self._mean
        self._mean += distance * (count / total)
        self._squares += squares + distance**2 * (self.count * count / total)
        self.count = total

    def _value_at(self, number: int, rank: int) -> Float[ndarray, " D"]:
        assert self._lower is not None
        keys = np.zeros(self.width, np.uint32)
        for dimension, target in enumerate(self._targets[number]):
            _, before = _bucket_of(self._upper[dimension], rank)
            lower, _ = _bucket_of(self._lower[number, dimension], rank - before)
            keys[dimension] = (int(target) << 16) | lower
        return _from_sortable(keys)


def _sortable(values: Float[ndarray, "N D"]) -> UInt32[ndarray, "N D"]:
    """Maps float32 numbers to integers of the same order."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    is_negative = (bits.view(np.int32) >> 31).view(np.uint32)
    return bits ^ (is_negative | np.uint32(1 << 31))


def _from_sortable(keys: UInt32[ndarray, " D"]) -> Float[ndarray, " D"]:
    """Inverse of `_sortable`."""
    return np.where(keys >> 31, keys ^ np.uint32(1 << 31), ~keys).astype(np.uint32).view(np.float32)


def _histogram(keys: UInt32[ndarray, " N"], weights: Int[ndarray, " N"] | None) -> Int[ndarray, " K"]:
    """Returns how often each of 65536 keys occurs."""
    return np.bincount(keys, weights=weights, minlength=_BUCKETS).astype(np.int64)


def _bucket_of(histogram: Int[ndarray, " K"], rank: int) -> tuple[int, int]:
    """Returns the bucket in which the number of that rank lies, and how many numbers lie in those before it."""
    ends = np.cumsum(histogram)
    bucket = int(np.searchsorted(ends, rank, side="right"))
    return bucket, int(ends[bucket - 1]) if bucket else 0


def _between(low: Float[ndarray, " D"], high: Float[ndarray, " D"], fraction: float) -> Float[ndarray, " D"]:
    """Returns numpy's linear interpolation of two neighbours, float64."""
    lower, upper = low.astype(np.float64), high.astype(np.float64)
    return lower + (upper - lower) * fraction
