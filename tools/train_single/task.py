"""A Gymnasium task with a flat observation as a robot: its description, resets and steps."""

from typing import Any

import gymnasium
import numpy as np

from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class StateTask:
    """A task whose observation is one vector and whose actions are bounded."""

    def __init__(self, name: str, *, hz: float) -> None:
        """Makes `gymnasium.make(name)`; raises ConfigError where its spaces do not fit."""
        self.env: gymnasium.Env[Any, Any] = gymnasium.make(name)
        seen, done = self.env.observation_space, self.env.action_space
        if not isinstance(seen, gymnasium.spaces.Box) or not isinstance(done, gymnasium.spaces.Box):
            raise ConfigError(f"Expected vectors as observations and actions of {name}, got {seen} and {done}.")
        self.spec = RobotSpec(
            name=name,
            cameras=(),
            state_names=tuple(f"state_{number}" for number in range(int(np.prod(seen.shape)))),
            action_names=tuple(f"action_{number}" for number in range(int(np.prod(done.shape)))),
            action_low=tuple(float(low) for low in done.low.flatten()),
            action_high=tuple(float(high) for high in done.high.flatten()),
            control_hz=hz,
        )

    def reset(self, seed: int | None = None) -> Observation:
        """Begins an episode."""
        return self._observed(self.env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, bool]:
        """Returns what follows a command, float32 [A]: observation, reward, terminated, truncated, success."""
        observation, reward, terminated, truncated, extra = self.env.step(action)
        success = bool(extra.get("success", extra.get("is_success", False)))
        return self._observed(observation), float(reward), bool(terminated), bool(truncated), success

    @staticmethod
    def _observed(observation: np.ndarray) -> Observation:
        return Observation(images={}, state=np.asarray(observation, np.float32).flatten(), prompt="")
