"""LBM: two Panda arms commanded by relative poses, four cameras that keep their own names as the model's slots."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.structure import require, text_of

STATE_DIM, ACTION_DIM = 18, 20
PROPRIOCEPTION_FIELDS = (
    "robot__actual__poses__left::panda__xyz",
    "robot__actual__poses__right::panda__xyz",
    "robot__actual__poses__left::panda__rot_6d",
    "robot__actual__poses__right::panda__rot_6d",
)
ACTION_FIELDS = (
    "robot__action__poses__left::panda__xyz_relative",
    "robot__action__poses__right::panda__xyz_relative",
    "robot__action__poses__left::panda__rot_6d_relative",
    "robot__action__poses__right::panda__rot_6d_relative",
    "robot__action__grippers__left::panda_hand",
    "robot__action__grippers__right::panda_hand",
)
CAMERA_NAMES = ("wrist_right_minus", "wrist_left_plus", "scene_left_0", "scene_right_0")
_FIELD_WIDTHS = (3, 3, 6, 6)


@dataclass(frozen=True, kw_only=True, slots=True)
class LbmInputs:
    """Robot or dataset to model: the fields in their fixed order, joined."""

    camera_names: tuple[str, ...] = CAMERA_NAMES

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample; every camera is valid."""
        images = {f"{name}_t0": to_uint8_hwc(require(sample, f"{name}_t0", "LBM")) for name in self.camera_names}
        state = np.concatenate([_vector(sample, name) for name in PROPRIOCEPTION_FIELDS])
        if state.shape != (STATE_DIM,):
            raise ValueError(f"LBM expects a state of {STATE_DIM} numbers, got shape {state.shape}.")
        result: dict[str, Any] = {"image": images, "image_mask": dict.fromkeys(images, np.True_), "state": state}
        if all(name in sample for name in ACTION_FIELDS):
            result["actions"] = np.concatenate([_rows(sample[name]) for name in ACTION_FIELDS], axis=-1)
        if "prompt" in sample:
            result["prompt"] = text_of(sample["prompt"])
        return result


@dataclass(frozen=True, slots=True)
class LbmOutputs:
    """Model to robot: the first 20 dimensions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 20]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def _vector(sample: Sample, name: str) -> np.ndarray:
    values = np.asarray(require(sample, name, "LBM"), np.float32)
    return values[-1] if values.ndim == 2 else values


def _rows(values: np.ndarray) -> np.ndarray:
    """Returns [H, width]; a gripper may come as [H]."""
    values = np.asarray(values, np.float32)
    return values[:, None] if values.ndim == 1 else values


def example() -> dict[str, Any]:
    """Returns an observation of the LBM robot."""
    image = np.zeros((224, 224, 3), np.uint8)
    fields = {
        name: np.zeros(width, np.float32) for name, width in zip(PROPRIOCEPTION_FIELDS, _FIELD_WIDTHS, strict=True)
    }
    return {**{f"{name}_t0": image for name in CAMERA_NAMES}, **fields, "prompt": "put the cup on the coaster"}
