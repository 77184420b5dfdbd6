"""A robot that can be looked at from another thread."""

import time
from typing import Any

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class ShownEnv:
    """Remembers the newest observation, by reference: that is all that the console costs the control loop."""

    def __init__(self, env: RobotEnv) -> None:
        self.env = env
        self.newest: Observation | None = None
        self.num_seen = 0
        """Observations so far."""
        self.num_ticks = 0
        self.seen_s = 0.0
        """Monotonic time of the newest observation."""
        self.is_resetting = False

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like."""
        return self.env.spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode."""
        self.is_resetting = True
        try:
            observation = self.env.reset(seed=seed)
        finally:
            self.is_resetting = False
        self._show(observation)
        return observation

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        self.num_ticks += 1
        self._show(transition.observation)
        return transition

    def render(self) -> np.ndarray:
        """Returns a picture of the scene."""
        return self.env.render()

    def close(self) -> None:
        """Frees the robot."""
        self.env.close()

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the robot has, e.g. `keeps_time`.
        return getattr(self.env, name)

    def _show(self, observation: Observation) -> None:
        self.newest = observation
        self.num_seen += 1
        self.seen_s = time.monotonic()
