"""YAM: two arms of six joints with grippers, three cameras. Absolute joint commands, no relative actions anywhere.

State and actions are [left_j0..5, left_gripper, right_j0..5, right_gripper].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.slots import SLOTS, fill_slots
from serl_launcher.transforms.structure import require, text_of

STATE_DIM = ACTION_DIM = 14
PROPRIOCEPTION_FIELDS = ("yam__joint_pos",)
ACTION_FIELDS = ("yam__action_joints",)
CAMERA_NAMES = ("scene_camera", "left_wrist_camera", "right_wrist_camera")
DIMENSIONS = tuple(f"{side}_{name}" for side in ("left", "right") for name in (*(f"j{i}" for i in range(6)), "gripper"))


@dataclass(frozen=True, slots=True)
class YamInputs:
    """Robot or dataset to model. A history of states counts by its last row."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample."""
        views = tuple(to_uint8_hwc(require(sample, name, "YAM")) for name in CAMERA_NAMES)
        filled, mask = fill_slots(SLOTS["pi0"], views, absent_is_valid=False)
        state = np.asarray(require(sample, PROPRIOCEPTION_FIELDS[0], "YAM"), np.float32)
        state = state[-1] if state.ndim == 2 else state
        if state.shape != (STATE_DIM,):
            raise ValueError(f"YAM expects a state of {STATE_DIM} joints {DIMENSIONS}, got shape {state.shape}.")
        result: dict[str, Any] = {"image": filled, "image_mask": mask, "state": state}
        if ACTION_FIELDS[0] in sample:
            result["actions"] = np.asarray(sample[ACTION_FIELDS[0]], np.float32)
        if "prompt" in sample:
            result["prompt"] = text_of(sample["prompt"])
        return result


@dataclass(frozen=True, slots=True)
class YamOutputs:
    """Model to robot: the first 14 dimensions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 14]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def example() -> dict[str, Any]:
    """Returns an observation of YAM as its converter writes it."""
    image = np.zeros((224, 224, 3), np.uint8)
    return {
        **dict.fromkeys(CAMERA_NAMES, image), PROPRIOCEPTION_FIELDS[0]: np.zeros(STATE_DIM), "prompt": "sort the cans"
    }  # fmt: skip
