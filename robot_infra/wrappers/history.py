"""The last states as one: what moves, and how fast, becomes visible to a policy without memory."""

from collections import deque
from dataclasses import replace

import msgspec
import numpy as np

from robot_infra.interfaces import RobotEnv, Transition
from robot_infra.wrappers.wrapped import Wrapped
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class History(Wrapped):
    """The state holds the last `num_states` states, oldest first; the first one is repeated at the beginning."""

    def __init__(self, env: RobotEnv, *, num_states: int) -> None:
        """Takes how many; raises ConfigError for fewer than one."""
        super().__init__(env)
        if num_states < 1:
            raise ConfigError(f"history: num_states must be 1 or more, got {num_states}.")
        self._states: deque[np.ndarray] = deque(maxlen=num_states)
        names = (
            f"{name}_{age}_ago" if age else name for age in reversed(range(num_states)) for name in env.spec.state_names
        )
        self._spec = msgspec.structs.replace(env.spec, state_names=tuple(names))

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like now."""
        return self._spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode."""
        observation = self.env.reset(seed=seed)
        self._states.extend([observation.state] * (self._states.maxlen or 1))
        return self._together(observation)

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        self._states.append(transition.observation.state)
        return replace(transition, observation=self._together(transition.observation))

    def _together(self, observation: Observation) -> Observation:
        return replace(observation, state=np.concatenate(list(self._states)))
