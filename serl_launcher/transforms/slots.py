"""The three image slots of the published models, and how a robot's cameras fill them."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

ModelType = Literal["pi0", "pi05", "pi0_fast"]

SLOTS: Mapping[str, tuple[str, str, str]] = {
    "pi0": ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"),
    "pi05": ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"),
    "pi0_fast": ("base_0_rgb", "base_1_rgb", "wrist_0_rgb"),
}
"""Image slots by model, in the model's order."""


def fill_slots(
    slots: tuple[str, ...], images: tuple[np.ndarray | None, ...], *, absent_is_valid: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.bool_]]:
    """Returns `image` and `image_mask`: absent cameras are black, and invalid unless `absent_is_valid`.

    Args:
        slots: Names of the model's slots.
        images: uint8 (height, width, 3) per slot, None where the robot lacks the camera; at least one is there.
        absent_is_valid: π0-FAST sees absent cameras as black pictures instead of not at all.
    """
    template = next(image for image in images if image is not None)
    filled = {
        slot: np.zeros_like(template) if image is None else image for slot, image in zip(slots, images, strict=True)
    }
    mask = {slot: np.bool_(image is not None or absent_is_valid) for slot, image in zip(slots, images, strict=True)}
    return filled, mask
