"""DROID: one Franka arm of seven joints with a gripper, an exterior and a wrist camera."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.slots import SLOTS, ModelType, fill_slots
from serl_launcher.transforms.structure import require, training_fields

STATE_DIM = ACTION_DIM = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class DroidInputs:
    """Robot to model: state = seven joints and the gripper."""

    model_type: ModelType = "pi0"

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample."""
        gripper = np.asarray(require(sample, "observation/gripper_position", "DROID"), np.float32).reshape((1,))
        joints = np.asarray(require(sample, "observation/joint_position", "DROID"), np.float32)
        exterior = to_uint8_hwc(require(sample, "observation/exterior_image_1_left", "DROID"))
        wrist = to_uint8_hwc(require(sample, "observation/wrist_image_left", "DROID"))
        is_fast = self.model_type == "pi0_fast"
        views = (exterior, None, wrist) if is_fast else (exterior, wrist, None)
        filled, mask = fill_slots(SLOTS[self.model_type], views, absent_is_valid=is_fast)
        state = np.concatenate([joints, gripper])
        return {"image": filled, "image_mask": mask, "state": state, **training_fields(sample)}


@dataclass(frozen=True, slots=True)
class DroidOutputs:
    """Model to robot: the first 8 dimensions, joint velocities unless the policy was trained on positions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 8]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def example() -> dict[str, Any]:
    """Returns an observation as DROID's robot sends it."""
    image = np.zeros((224, 224, 3), np.uint8)
    return {
        "observation/exterior_image_1_left": image,
        "observation/wrist_image_left": image,
        "observation/joint_position": np.zeros(7),
        "observation/gripper_position": np.zeros(1),
        "prompt": "do something",
    }
