"""LBM: two Panda arms commanded by relative poses, four cameras that keep their own names as the model's slots.

    observation/images/<camera>_t0          uint8, any size
    observation/proprioception/<field>      [width], or a history [past + 1, width]
    actions/<field>                         [H, width], in training
    prompt

Names may be nested; the bare names of cameras (`<camera>_t0`) and fields are taken as well.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.structure import by_path, require_one, text_of

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
        flat = by_path(sample)
        images = {name: to_uint8_hwc(_one(flat, "observation/images", name)) for name in self._slots}
        state = np.concatenate([_vector(flat, name) for name in PROPRIOCEPTION_FIELDS])
        if state.shape != (STATE_DIM,):
            raise ValueError(f"LBM expects a state of {STATE_DIM} numbers, got shape {state.shape}.")
        result: dict[str, Any] = {"image": images, "image_mask": dict.fromkeys(images, np.True_), "state": state}
        if any(name in flat or f"actions/{name}" in flat for name in ACTION_FIELDS):
            result["actions"] = np.concatenate([_rows(_one(flat, "actions", name)) for name in ACTION_FIELDS], axis=-1)
        if "prompt" in flat:
            result["prompt"] = text_of(flat["prompt"])
        return result

    @property
    def _slots(self) -> tuple[str, ...]:
        return tuple(f"{name}_t0" for name in self.camera_names)


@dataclass(frozen=True, slots=True)
class LbmOutputs:
    """Model to robot: the first 20 dimensions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 20]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def _one(flat: Sample, folder: str, name: str) -> Any:  # Any: as in the sample.
    return require_one(flat, (f"{folder}/{name}", name), "LBM")


def _vector(flat: Sample, name: str) -> np.ndarray:
    values = np.asarray(_one(flat, "observation/proprioception", name), np.float32)
    return values[-1] if values.ndim == 2 else values


def _rows(values: np.ndarray) -> np.ndarray:
    """Returns [H, width]; a gripper may come as [H]."""
    values = np.asarray(values, np.float32)
    return values[:, None] if values.ndim == 1 else values


def example() -> dict[str, Any]:
    """Returns an observation of the LBM robot as readers of its data give it."""
    image = np.zeros((224, 224, 3), np.uint8)
    fields = {
        f"observation/proprioception/{name}": np.zeros(width, np.float32)
        for name, width in zip(PROPRIOCEPTION_FIELDS, _FIELD_WIDTHS, strict=True)
    }
    images = {f"observation/images/{name}_t0": image for name in CAMERA_NAMES}
    return {**images, **fields, "prompt": "put the cup on the coaster"}
