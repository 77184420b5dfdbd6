"""ALOHA: two arms of six joints with grippers, up to four cameras.

State and actions are [6 joints, gripper] of the left arm, then of the right one. The base models were trained on
flipped joints and on gripper angles; with `adapt_to_pi` the transforms change between the two conventions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serl_launcher.transforms.group import Sample
from serl_launcher.transforms.images import to_uint8_hwc
from serl_launcher.transforms.slots import SLOTS, fill_slots
from serl_launcher.transforms.structure import Repack, require, text_of

STATE_DIM = ACTION_DIM = 14
CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
GRIPPERS = [6, 13]
JOINT_FLIP = np.array([1, -1, -1, 1, 1, 1, 1] * 2, np.float64)
METADATA: dict[str, Any] = {"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}
"""What servers of ALOHA policies tell their clients."""
REPACK = Repack({"images": {"cam_high": "observation.images.top"}, "state": "observation.state", "actions": "action"})

# Linear travel of the gripper in metres, and the lever that turns it into an angle.
_TRAVEL_M = (0.01844, 0.05800)
_ARM_M, _HORN_M = 0.036, 0.022
# Angles of the base model's gripper and of ALOHA's, in radians, at the two ends.
_MODEL_RAD = (0.5476, 1.6296)
_ALOHA_RAD = (-0.6213, 1.4910)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlohaInputs:
    """Robot to model. `cam_high` is required, wrists are optional, `cam_low` is accepted and not used."""

    adapt_to_pi: bool = True

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns the model's sample; raises ValueError on a camera that ALOHA does not have."""
        images: Mapping[str, np.ndarray] = require(sample, "images", "ALOHA")
        unknown = set(images) - set(CAMERAS)
        if unknown or "cam_high" not in images:
            raise ValueError(f"ALOHA expects 'cam_high' and cameras among {CAMERAS}, got {tuple(images)}.")
        views = tuple(
            to_uint8_hwc(images[name]) if name in images else None
            for name in ("cam_high", "cam_left_wrist", "cam_right_wrist")
        )
        filled, mask = fill_slots(SLOTS["pi0"], views, absent_is_valid=False)
        state = np.asarray(require(sample, "state", "ALOHA"), np.float32)
        result: dict[str, Any] = {"image": filled, "image_mask": mask, "state": self._state(state)}
        if "actions" in sample:
            result["actions"] = self._actions(np.asarray(sample["actions"], np.float32))
        if "prompt" in sample:
            result["prompt"] = text_of(sample["prompt"])
        return result

    def _state(self, state: np.ndarray) -> np.ndarray:
        if not self.adapt_to_pi:
            return state
        adapted = state * JOINT_FLIP
        adapted[..., GRIPPERS] = gripper_to_model(state[..., GRIPPERS])
        return adapted.astype(np.float32)

    def _actions(self, actions: np.ndarray) -> np.ndarray:
        if not self.adapt_to_pi:
            return actions
        adapted = actions * JOINT_FLIP
        adapted[..., GRIPPERS] = gripper_command_to_model(actions[..., GRIPPERS])
        return adapted.astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlohaOutputs:
    """Model to robot: the first 14 dimensions."""

    adapt_to_pi: bool = True

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Returns `actions` alone, [H, 14]."""
        actions = np.asarray(sample["actions"])[..., :ACTION_DIM]
        if self.adapt_to_pi:
            adapted = actions * JOINT_FLIP
            adapted[..., GRIPPERS] = gripper_command_to_robot(actions[..., GRIPPERS])
            actions = adapted.astype(np.float32)
        return {"actions": actions}


def gripper_to_model(opening: np.ndarray) -> np.ndarray:
    """Returns the base model's gripper value for a measured opening in [0, 1]."""
    metres = opening * (_TRAVEL_M[1] - _TRAVEL_M[0]) + _TRAVEL_M[0]
    sine = (_HORN_M**2 + metres**2 - _ARM_M**2) / (2 * _HORN_M * metres)
    return _to_unit(np.arcsin(np.clip(sine, -1.0, 1.0)), _MODEL_RAD)


def gripper_command_to_robot(value: np.ndarray) -> np.ndarray:
    """Returns the command in ALOHA's units for a gripper value of the base model."""
    return _to_unit(value + _MODEL_RAD[0], _ALOHA_RAD)


def gripper_command_to_model(command: np.ndarray) -> np.ndarray:
    """Inverse of `gripper_command_to_robot`."""
    low, high = _ALOHA_RAD
    return command * (high - low) + low - _MODEL_RAD[0]


def _to_unit(value: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    low, high = ends
    return (value - low) / (high - low)


def example() -> dict[str, Any]:
    """Returns an observation as ALOHA's robot sends it."""
    image = np.zeros((3, 224, 224), np.uint8)
    return {"state": np.ones(STATE_DIM), "images": dict.fromkeys(CAMERAS, image), "prompt": "do something"}
