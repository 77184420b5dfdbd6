"""Cuts out of each camera's picture what matters, and scales it back to the camera's size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from robot_infra.interfaces import RobotEnv, Transition, look
from robot_infra.wrappers.wrapped import Wrapped
from serl_launcher.errors import ConfigError
from serl_launcher.types import Observation


class Crop(Wrapped):
    """Every camera may have its own part; the spec stays as it is."""

    def __init__(self, env: RobotEnv, *, parts: Mapping[str, Sequence[int]]) -> None:
        """Takes per camera x, y, width and height in pixels; raises ConfigError where one is not inside the picture."""
        super().__init__(env)
        self._parts = {name: _checked(env, name, part) for name, part in parts.items()}

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode."""
        return self._cropped(self.env.reset(seed=seed))

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        return replace(transition, observation=self._cropped(transition.observation))

    def look(self) -> Observation | None:
        """Returns what can be seen meanwhile."""
        seen = look(self.env)
        return None if seen is None else self._cropped(seen)

    def _cropped(self, observation: Observation) -> Observation:
        images = dict(observation.images)
        for name, (left, top, width, height) in self._parts.items():
            picture = images[name]
            part = Image.fromarray(np.ascontiguousarray(picture[top : top + height, left : left + width]))
            images[name] = np.asarray(part.resize((picture.shape[1], picture.shape[0]), Image.Resampling.BILINEAR))
        return replace(observation, images=images)


def _checked(env: RobotEnv, name: str, part: Sequence[int]) -> tuple[int, int, int, int]:
    if name not in env.spec.camera_names:
        raise ConfigError(f"crop: {name!r} is no camera, there are {list(env.spec.camera_names)}.")
    camera = env.spec.camera(name)
    left, top, width, height = part if len(part) == 4 else (-1, -1, 0, 0)
    if min(left, top) < 0 or min(width, height) < 1 or left + width > camera.width or top + height > camera.height:
        raise ConfigError(
            f"crop.{name}: expected x, y, width, height inside {camera.width}x{camera.height}, got {part}."
        )
    return left, top, width, height
