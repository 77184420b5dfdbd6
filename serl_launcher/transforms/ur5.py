"""UR5: one arm of six joints with a gripper, a base and a wrist camera."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.slots import SLOTS, ModelType, fill_slots
from serl_launcher.transforms.structure import require, training_fields

STATE_DIM = ACTION_DIM = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Ur5Inputs:
    """Robot to model: state = six joints and the gripper."""

    model_type: ModelType = "pi0"

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample."""
        joints = np.asarray(require(sample, "joints", "UR5"), np.float32)
        gripper = np.asarray(require(sample, "gripper", "UR5"), np.float32).reshape((1,))
        base, wrist = (to_uint8_hwc(require(sample, name, "UR5")) for name in ("base_rgb", "wrist_rgb"))
        filled, mask = fill_slots(SLOTS["pi0"], (base, wrist, None), absent_is_valid=self.model_type == "pi0_fast")
        state = np.concatenate([joints, gripper])
        return {"image": filled, "image_mask": mask, "state": state, **training_fields(sample)}


@dataclass(frozen=True, slots=True)
class Ur5Outputs:
    """Model to robot: the first 7 dimensions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 7]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def example() -> dict[str, Any]:
    """Returns an observation as a UR5 sends it."""
    image = np.zeros((224, 224, 3), np.uint8)
    return {
        "joints": np.zeros(6), "gripper": np.zeros(1), "base_rgb": image, "wrist_rgb": image, "prompt": "do something"
    }  # fmt: skip
