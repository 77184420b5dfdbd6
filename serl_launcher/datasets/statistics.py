"""Statistics as LeRobot stores them: min, max, mean, std, count and quantiles per feature.

The statistics of a dataset are those of its episodes joined as `lerobot.datasets.compute_stats.aggregate_stats` does:
exact for all but the quantiles, which are averages of the episodes' quantiles weighted by their counts.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from serl_launcher.images import decode_image

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MAX_SAMPLED_IMAGES = 8
MAX_SAMPLED_SIDE = 75

FeatureStatistics = dict[str, np.ndarray]
"""Statistic to float64 array: [width] for vectors, [3, 1, 1] in [0, 1] for images; `count` is int64 [1]."""


def vector_statistics(values: np.ndarray) -> FeatureStatistics:
    """Returns the statistics over time of float or bool [T] or [T, width]."""
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def flag_statistics(num_true: int, count: int) -> FeatureStatistics:
    """Returns the statistics of a boolean feature of which `num_true` out of `count` values are True."""
    mean = num_true / count
    statistics = {"min": float(num_true == count), "max": float(num_true > 0), "mean": mean}
    statistics["std"] = float(np.sqrt(mean * (1 - mean)))
    statistics |= {name: float(quantile > 1 - mean) for name, quantile in QUANTILES.items()}
    return {name: np.array([value]) for name, value in statistics.items()} | {"count": np.array([count])}


def image_statistics(encoded: Sequence[bytes], shape: tuple[int, int, int]) -> FeatureStatistics:
    """Returns the statistics per channel over a sample of an episode's images and of their pixels.

    Args:
        encoded: JPEG, PNG or raw images of one camera.
        shape: (height, width, 3) of each.
    """
    chosen = np.unique(np.linspace(0, len(encoded) - 1, min(len(encoded), MAX_SAMPLED_IMAGES)).round().astype(int))
    stride = max(1, -(-max(shape[:2]) // MAX_SAMPLED_SIDE))
    histogram = np.zeros((3, 256), np.int64)
    for step in chosen:
        pixels = decode_image(encoded[step], shape)[::stride, ::stride]
        for channel in range(3):
            histogram[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    return _histogram_statistics(histogram) | {"count": np.array([len(chosen)])}


def _histogram_statistics(histogram: np.ndarray) -> FeatureStatistics:
    """Returns the statistics of int64 [3, 256] counts of pixel values, scaled to [0, 1]."""
    levels = np.arange(256) / 255.0
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ levels
    present = histogram > 0
    cumulative = np.cumsum(weights, axis=1)
    statistics = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(weights @ levels**2 - mean**2, 0.0)),
    }
    for name, quantile in QUANTILES.items():
        statistics[name] = levels[(cumulative >= quantile - 1e-12).argmax(axis=1)]
    return {name: value.reshape(3, 1, 1) for name, value in statistics.items()}


def aggregate(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Returns the statistics of one feature over several sets of values."""
    parts = list(parts)
    counts = np.array([int(part["count"][0]) for part in parts])
    shares = counts / counts.sum()

    def weighted(values: list[np.ndarray]) -> np.ndarray:
        return np.tensordot(shares, np.stack(values), axes=1)

    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([counts.sum()]),
        **{name: weighted([part[name] for part in parts]) for name in QUANTILES},
    }


def to_lists(statistics: dict[str, FeatureStatistics]) -> dict[str, dict[str, list]]:
    """Returns statistics as stats.json holds them."""
    return {feature: {name: value.tolist() for name, value in values.items()} for feature, values in statistics.items()}


def from_lists(statistics: Mapping[str, Mapping[str, object]]) -> dict[str, FeatureStatistics]:
    """Returns the statistics in the content of stats.json; NaN for each null."""
    return {
        feature: {
            name: np.asarray(value, np.int64 if name == "count" else np.float64) for name, value in values.items()
        }
        for feature, values in statistics.items()
    }


def is_finite(statistics: FeatureStatistics) -> bool:
    """Whether every value is a number; JSON has none for the others."""
    return all(np.isfinite(value).all() for value in statistics.values())
