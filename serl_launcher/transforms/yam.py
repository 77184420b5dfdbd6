"""YAM: two arms of six joints with grippers, three cameras. Absolute joint commands, no relative actions anywhere.

State and actions are [left_j0..5, left_gripper, right_j0..5, right_gripper].

    observation/images/<camera>_t0               uint8, any size
    observation/proprioception/yam__joint_pos    [14], or a history [past + 1, 14]
    actions/yam__action_joints                   [H, 14], in training
    prompt

Names may be nested. Those of sibling data sets are taken as well: the fields' bare names, `observation/image_head`,
`observation/image_left_wrist`, `observation/state`, LeRobot's `observation.images.<camera>` and `action`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.slots import SLOTS, fill_slots
from serl_launcher.transforms.structure import by_path, require_one, text_of

STATE_DIM = ACTION_DIM = 14
PROPRIOCEPTION_FIELDS = ("yam__joint_pos",)
ACTION_FIELDS = ("yam__action_joints",)
CAMERA_NAMES = ("scene_camera", "left_wrist_camera", "right_wrist_camera")
DIMENSIONS = tuple(f"{side}_{name}" for side in ("left", "right") for name in (*(f"j{i}" for i in range(6)), "gripper"))


_SIBLING_CAMERAS = ("image_head", "image_left_wrist", "image_right_wrist")
_STATE_PATHS = (f"observation/proprioception/{PROPRIOCEPTION_FIELDS[0]}", PROPRIOCEPTION_FIELDS[0], "observation/state")
_ACTION_PATHS = (f"actions/{ACTION_FIELDS[0]}", ACTION_FIELDS[0], "actions", "action")


@dataclass(frozen=True, slots=True)
class YamInputs:
    """Robot or dataset to model. A history of states counts by its last row."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample."""
        flat = by_path(sample)
        views = tuple(
            to_uint8_hwc(require_one(flat, _image_paths(camera, sibling), "YAM"))
            for camera, sibling in zip(CAMERA_NAMES, _SIBLING_CAMERAS, strict=True)
        )
        filled, mask = fill_slots(SLOTS["pi0"], views, absent_is_valid=False)
        state = np.asarray(require_one(flat, _STATE_PATHS, "YAM"), np.float32)
        state = state[-1] if state.ndim == 2 else state
        if state.shape != (STATE_DIM,):
            raise ValueError(f"YAM expects a state of {STATE_DIM} joints {DIMENSIONS}, got shape {state.shape}.")
        result: dict[str, Any] = {"image": filled, "image_mask": mask, "state": state}
        actions = next((flat[path] for path in _ACTION_PATHS if path in flat), None)
        if actions is not None:
            result["actions"] = np.asarray(actions, np.float32)
        if "prompt" in flat:
            result["prompt"] = text_of(flat["prompt"])
        return result


def _image_paths(camera: str, sibling: str) -> tuple[str, ...]:
    return (
        f"observation/images/{camera}_t0", f"observation/images/{camera}", camera, f"observation/{sibling}"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class YamOutputs:
    """Model to robot: the first 14 dimensions."""

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 14]."""
        return {"actions": np.asarray(sample["actions"])[..., :ACTION_DIM]}


def example() -> dict[str, Any]:
    """Returns an observation of YAM as readers of its converted data give it."""
    image = np.zeros((224, 224, 3), np.uint8)
    return {
        **{f"observation/images/{camera}_t0": image for camera in CAMERA_NAMES},
        f"observation/proprioception/{PROPRIOCEPTION_FIELDS[0]}": np.zeros(STATE_DIM),
        "prompt": "sort the cans",
    }
