"""Normalisation of states and actions with openpi's formulas and file format (`norm_stats.json`)."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from serl_launcher.errors import CheckpointError

EPSILON = 1e-6
MIN_STD = 0.01
"""Of statistics that we compute, in robot units: a joint that never moved would otherwise be scaled by a million."""


class NormStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Statistics of one vector over a dataset; every list has its unpadded width."""

    mean: list[float]
    std: list[float]
    q01: list[float] | None = None
    q99: list[float] | None = None


def with_least_std(stats: NormStats) -> NormStats:
    """Returns the statistics with every deviation at least MIN_STD, and quantiles at least twice that apart."""
    wider = msgspec.structs.replace(stats, std=[max(std, MIN_STD) for std in stats.std])
    if stats.q01 is None or stats.q99 is None:
        return wider
    missing = [max(0.0, MIN_STD - (high - low) / 2) for low, high in zip(stats.q01, stats.q99, strict=True)]
    return msgspec.structs.replace(
        wider,
        q01=[low - more for low, more in zip(stats.q01, missing, strict=True)],
        q99=[high + more for high, more in zip(stats.q99, missing, strict=True)],
    )


def relative_dimensions(action_names: Sequence[str]) -> np.ndarray:
    """Returns which actions are relative to the state with `policy.delta_actions`, bool [A]: all but grippers."""
    return np.array(["gripper" not in name for name in action_names])


class _File(msgspec.Struct, frozen=True):
    norm_stats: dict[str, NormStats]


def read_norm_stats(path: Path) -> dict[str, NormStats]:
    """Returns the statistics per key (`state`, `actions`); raises CheckpointError on any other content."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).norm_stats
    except msgspec.MsgspecError as exc:
        raise CheckpointError(f"Expected openpi's norm_stats.json at {path}: {exc}.") from exc


def write_norm_stats(path: Path, stats: dict[str, NormStats]) -> None:
    """Writes openpi's `norm_stats.json`."""
    path.write_text(json.dumps({"norm_stats": msgspec.to_builtins(stats)}, indent=2), encoding="utf-8")


class Normalizer:
    """Maps vectors to the network's scale and back: `zscore` or `quantile`."""

    def __init__(self, stats: NormStats, kind: str, device: torch.device) -> None:
        if kind == "quantile":
            if stats.q01 is None or stats.q99 is None:
                raise CheckpointError("Quantile normalisation needs q01 and q99; compute the statistics again.")
            low, high = (torch.tensor(q, dtype=torch.float32, device=device) for q in (stats.q01, stats.q99))
            self._scale = (high - low + EPSILON) / 2
            self._offset = low + self._scale
        else:
            self._offset = torch.tensor(stats.mean, dtype=torch.float32, device=device)
            self._scale = torch.tensor(stats.std, dtype=torch.float32, device=device) + EPSILON

    @property
    def width(self) -> int:
        """Width of the vectors it was made for."""
        return len(self._offset)

    def normalize(self, values: Tensor) -> Tensor:
        """Returns (x - offset) / scale over the last axis."""
        return (values - self._offset) / self._scale

    def unnormalize(self, values: Tensor) -> Tensor:
        """Inverse of `normalize`."""
        return values * self._scale + self._offset
