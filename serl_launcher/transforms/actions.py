"""What happens to action chunks between robot and model: relative to the state, and back; stride."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample


def make_bool_mask(*runs: int) -> np.ndarray:
    """Returns bool [sum of |runs|]: a positive run is that many True, a negative one that many False.

    Example:
        make_bool_mask(6, -1) -> six True, one False
    """
    return np.concatenate([np.full(abs(run), run > 0) for run in runs])


@dataclass(frozen=True, slots=True)
class DeltaActions:
    """Makes actions relative to the current state where the mask is True; dimensions beyond the mask stay."""

    mask: np.ndarray

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample with relative `actions`, where it has any."""
        return _shifted(sample, self.mask, sign=-1.0)


@dataclass(frozen=True, slots=True)
class AbsoluteActions:
    """Inverse of `DeltaActions`."""

    mask: np.ndarray

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample with absolute `actions`, where it has any."""
        return _shifted(sample, self.mask, sign=1.0)


@dataclass(frozen=True, slots=True)
class SubsampleActions:
    """Keeps every `stride`-th action of a chunk."""

    stride: int

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample with fewer `actions`."""
        return {**sample, "actions": sample["actions"][:: self.stride]}


def _shifted(sample: Sample, mask: np.ndarray, *, sign: float) -> dict[str, Any]:
    if "actions" not in sample:
        return dict(sample)
    state, actions = np.asarray(sample["state"]), np.array(sample["actions"])
    width = len(mask)
    if min(state.shape[-1], actions.shape[-1]) < width:
        raise ValueError(
            f"The mask of relative actions has {width} dimensions, the state {state.shape[-1]}, the actions "
            f"{actions.shape[-1]}; expected at least as many."
        )
    actions[..., :width] += sign * np.where(mask, state[..., :width], 0)[..., None, :].astype(actions.dtype)
    return {**sample, "actions": actions}
