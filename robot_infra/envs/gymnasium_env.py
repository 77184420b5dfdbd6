"""Makes a Gymnasium environment with named images, a state and a prompt look like a robot."""

from typing import Any

import gymnasium
import numpy as np

from robot_infra.cameras.specs import camera_specs
from robot_infra.interfaces import Transition
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class GymnasiumRobot:
    """A robot made of a Gymnasium environment; satisfies `robot_infra.interfaces.RobotEnv`.

    The environment's observation is a dictionary of uint8 (height, width, 3) images named by `environment.image_keys`,
    a float32 vector `state` and a string `prompt`; its actions are a bounded Box.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        config: EnvironmentConfig,
        *,
        state_names: tuple[str, ...],
        action_names: tuple[str, ...],
    ) -> None:
        self.env = env
        self._prompts = list(config.prompts)
        self._spec = _spec_of(env, config, state_names=state_names, action_names=action_names)
        self._prompt: str | None = None

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like, from the environment's spaces."""
        return self._spec

    def reset(self, *, seed: int) -> Observation:
        """Begins the episode of that seed."""
        observation, _ = self.env.reset(seed=seed)
        self._prompt = self._prompts[seed % len(self._prompts)] if self._prompts else None
        return self._observation(observation)

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [A], clipped to the bounds, for one tick."""
        low, high = self._spec.action_bounds()
        executed = np.clip(np.asarray(action, np.float32), low, high)
        observation, reward, terminated, truncated, extra = self.env.step(executed)
        return Transition(
            observation=self._observation(observation),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            success=bool(extra.get("success", extra.get("is_success", False))),
            executed_action=executed,
        )

    def render(self) -> np.ndarray:
        """Returns a picture for videos, uint8 (height, width, 3)."""
        picture = self.env.render()
        if not isinstance(picture, np.ndarray):
            raise ConfigError(f"{self._spec.name} must render rgb_array, got {type(picture).__name__}.")
        return picture

    def close(self) -> None:
        """Frees the environment."""
        self.env.close()

    def _observation(self, observation: dict[str, Any]) -> Observation:
        return Observation(
            images={name: observation[name] for name in self._spec.camera_names},
            state=np.asarray(observation["state"], np.float32),
            prompt=self._prompt if self._prompt is not None else str(observation["prompt"]),
        )


def _spec_of(
    env: gymnasium.Env[Any, Any],
    config: EnvironmentConfig,
    *,
    state_names: tuple[str, ...],
    action_names: tuple[str, ...],
) -> RobotSpec:
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, gymnasium.spaces.Box) or not isinstance(observations, gymnasium.spaces.Dict):
        raise ConfigError(f"{config.name}: expected Box actions and Dict observations, got {actions}, {observations}.")
    missing = [name for name in config.image_keys if name not in observations.spaces]
    if missing:
        raise ConfigError(
            f"environment.image_keys {missing} are unknown; {config.name} has {list(observations.spaces)}."
        )
    return RobotSpec(
        name=config.name,
        cameras=camera_specs(config),
        state_names=state_names,
        action_names=action_names,
        action_low=tuple(float(bound) for bound in actions.low),
        action_high=tuple(float(bound) for bound in actions.high),
        control_hz=config.hz,
        max_speed=tuple(config.max_speed),
        max_acceleration=tuple(config.max_acceleration),
        max_jerk=tuple(config.max_jerk),
        workspace=config.workspace_spec(),
        max_jump=tuple(config.max_jump),
    )
