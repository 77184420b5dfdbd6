"""The stage nearest to the model: prompt, image size, padding."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import resize_with_pad


@dataclass(frozen=True, slots=True)
class InjectDefaultPrompt:
    """Gives samples without a prompt this one; None leaves them without."""

    prompt: str | None

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample with a prompt."""
        if self.prompt is None or "prompt" in sample:
            return dict(sample)
        return {**sample, "prompt": self.prompt}


@dataclass(frozen=True, slots=True)
class ResizeImages:
    """Fits every image of `image` into one size, without distortion."""

    height: int
    width: int

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the sample with images of that size."""
        images = {name: resize_with_pad(image, self.height, self.width) for name, image in sample["image"].items()}
        return {**sample, "image": images}


@dataclass(frozen=True, slots=True)
class PadStatesAndActions:
    """Pads `state` and `actions` with zeros to the model's width (32 for the published models)."""

    width: int

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the padded sample."""
        padded = {key: _pad(sample[key], self.width, key) for key in ("state", "actions") if key in sample}
        return {**sample, **padded}


def _pad(values: np.ndarray, width: int, key: str) -> np.ndarray:
    missing = width - values.shape[-1]
    if missing < 0:
        raise ValueError(f"Expected {key!r} of at most {width} dimensions, got {values.shape[-1]}.")
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
