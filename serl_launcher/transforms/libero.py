"""LIBERO: one simulated Panda arm, a base and a wrist camera."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.slots import SLOTS, ModelType, fill_slots
from serl_launcher.transforms.structure import require, training_fields

STATE_DIM, ACTION_DIM = 8, 7


@dataclass(frozen=True, kw_only=True, slots=True)
class LiberoInputs:
    """Robot to model: state = position 3, axis-angle 3, gripper fingers 2 of the end effector."""

    model_type: ModelType = "pi0"

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample."""
        base = to_uint8_hwc(require(sample, "observation/image", "LIBERO"))
        wrist = to_uint8_hwc(require(sample, "observation/wrist_image", "LIBERO"))
        # The slots keep π0's names for π0-FAST as well, and the empty one then counts as a picture.
        filled, mask = fill_slots(SLOTS["pi0"], (base, wrist, None), absent_is_valid=self.model_type == "pi0_fast")
        state = np.asarray(require(sample, "observation/state", "LIBERO"), np.float32)
        return {"image": filled, "image_mask": mask, "state": state, **training_fields(sample)}


@dataclass(frozen=True, slots=True)
class LiberoOutputs:
    """Model to robot: the first 7 dimensions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 7]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def example() -> dict[str, Any]:
    """Returns an observation as LIBERO's evaluation sends it."""
    image = np.zeros((224, 224, 3), np.uint8)
    return {
        "observation/state": np.zeros(STATE_DIM),
        "observation/image": image,
        "observation/wrist_image": image,
        "prompt": "do something",
    }
