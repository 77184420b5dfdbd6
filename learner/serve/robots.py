"""What a robot says becomes lanes of a policy, and its actions become what the robot executes.

A policy whose cameras are image slots of the published models is served through the transforms of a known robot. Every
policy is served to its own robot ("native"), whose observation is

    {"images": {camera: uint8, channels first or last}, "state": [S], "prompt": str}

with keys nested or joined by slashes or dots, with or without a leading `observation`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.server.lanes import Lanes
from serl_launcher.errors import ConfigError, ProtocolError
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.transforms import Pipeline, robot_transforms
from serl_launcher.transforms.images import resize_with_pad, to_uint8_hwc
from serl_launcher.transforms.slots import ModelType
from serl_launcher.transforms.structure import flatten, text_of

NATIVE = "native"
_WIDE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedRobot:
    """One kind of robot in front of one policy."""

    spec: RobotSpec
    """Of the policy."""
    pipeline: Pipeline
    is_native: bool
    metadata: dict[str, Any]
    default_prompt: str = ""

    def lanes_of(self, observation: dict[str, Any]) -> Lanes:
        """Returns one observation as the policy takes it.

        Raises:
            ProtocolError: Something that the policy needs is missing or has another shape; the message says what.
        """
        try:
            inside = self._native(observation) if self.is_native else self.pipeline.from_robot(observation)
            return self._lanes(inside)
        except (KeyError, ValueError, TypeError) as exc:
            reason = exc.args[0] if exc.args else exc
            raise ProtocolError(f"The observation does not fit robot {self.spec.name!r}: {reason}") from exc

    def reply_of(self, actions: np.ndarray, lanes: Lanes) -> dict[str, Any]:
        """Returns what the robot is answered, `{"actions": float32 [H, A]}`, for the policy's [H, A]."""
        outside = self.pipeline.to_robot({"actions": actions, "state": lanes.state[0]})
        return {"actions": np.ascontiguousarray(outside["actions"], np.float32)}

    def _native(self, observation: dict[str, Any]) -> dict[str, Any]:
        flat = {_short(key): value for key, value in flatten(observation).items()}
        missing = [f"images/{name}" for name in self.spec.camera_names if f"images/{name}" not in flat]
        if missing or "state" not in flat:
            raise KeyError(f"expected {['state', *missing]}, got {sorted(flat)}.")
        images = {name: to_uint8_hwc(flat[f"images/{name}"]) for name in self.spec.camera_names}
        prompt = text_of(flat["prompt"]) if "prompt" in flat else self.default_prompt
        return {"image": images, "state": flat["state"], "prompt": prompt}

    def _lanes(self, inside: dict[str, Any]) -> Lanes:
        state = np.array(inside["state"], np.float32)  # What came over the network cannot be written to; a copy can.
        if state.shape != (self.spec.state_dim,):
            raise ValueError(f"expected a state of shape ({self.spec.state_dim},), got {state.shape}.")
        if not np.isfinite(state).all():
            raise ValueError(f"expected a finite state, got {state.tolist()}.")
        images = [
            resize_with_pad(inside["image"][camera.name], camera.height, camera.width) for camera in self.spec.cameras
        ]
        mask = inside.get("image_mask", {})
        valid = np.array([[bool(mask.get(name, True)) for name in self.spec.camera_names]])
        return Lanes(
            images=np.stack(images)[None],
            state=state[None],
            prompts=[inside.get("prompt", self.default_prompt)],
            image_valid=None if valid.all() else valid,
        )


def served_robot(
    spec: RobotSpec, robot: str = NATIVE, *, model_type: ModelType = "pi0", default_prompt: str | None = None,
    delta_actions: bool = False,
) -> ServedRobot:  # fmt: skip
    """Returns how a robot is served by a policy of that spec.

    Args:
        spec: Of the policy.
        robot: `native`, or a robot of `serl_launcher.transforms`.
        model_type: Which image slots the policy has.
        default_prompt: For observations without one.
        delta_actions: Whether the policy's joints are relative to the state, and nothing else undoes that.

    Raises:
        ConfigError: There is no such robot, or the policy was not made for it.
    """
    if robot == NATIVE:
        if delta_actions:
            raise ConfigError("--policy.delta-actions needs --policy.robot: it says which actions are relative.")
        return ServedRobot(
            spec=spec, pipeline=Pipeline(), is_native=True, metadata=_metadata(spec),
            default_prompt=default_prompt or "",
        )  # fmt: skip
    known = robot_transforms(robot)
    pipeline = Pipeline(robot=known.group(model_type, delta_actions=delta_actions), default_prompt=default_prompt)
    slots = tuple(pipeline.from_robot(known.example())["image"])
    if set(slots) != set(spec.camera_names) or spec.state_dim != known.state_dim:
        raise ConfigError(
            f"Robot {robot!r} fills the image slots {slots} and has {known.state_dim} state dimensions; the policy was "
            f"made for cameras {spec.camera_names} and {spec.state_dim}. Serve it with --policy.robot={NATIVE}."
        )
    return ServedRobot(
        spec=spec, pipeline=pipeline, is_native=False, metadata={**_metadata(spec), **known.metadata},
        default_prompt=default_prompt or "",
    )  # fmt: skip


def policy_spec(robot: str, *, image_size: int = 224) -> RobotSpec:
    """Returns the spec of a published policy for a known robot: its image slots, and as many dimensions.

    What the published policies call grippers is named so. Bounds are wide: the robot's own limits count.
    """
    known = robot_transforms(robot)
    slots = Pipeline(robot=known.group("pi0")).from_robot(known.example())["image"]
    relative = np.ones(known.action_dim, bool) if known.delta_mask is None else known.delta_mask
    actions = tuple(
        f"a{number}" if number >= len(relative) or relative[number] else f"a{number}_gripper"
        for number in range(known.action_dim)
    )
    cameras = tuple(CameraSpec(name=slot, height=image_size, width=image_size) for slot in slots)
    return RobotSpec(
        name=robot, cameras=cameras, state_names=tuple(f"s{number}" for number in range(known.state_dim)),
        action_names=actions, action_low=(-_WIDE,) * known.action_dim, action_high=(_WIDE,) * known.action_dim,
        control_hz=known.control_hz,
    )  # fmt: skip


def _metadata(spec: RobotSpec) -> dict[str, Any]:
    return {
        "robot": spec.name,
        "cameras": list(spec.camera_names),
        "state_names": list(spec.state_names),
        "action_names": list(spec.action_names),
        "control_hz": spec.control_hz,
    }


def _short(path: str) -> str:
    """Returns a path with slashes, without a leading `observation`."""
    return path.replace(".", "/").removeprefix("observation/").replace("image/", "images/")
