"""A robot that can be looked at from another thread, also while the control loop waits."""

import contextlib
import time
from typing import Any

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition, look
from serl_launcher.errors import RobotError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation

LOOK_AFTER_S = 0.3
"""Where the control loop has not looked for so long, the console looks by itself."""


class ShownEnv:
    """Remembers the newest observation, by reference: that is all that the console costs the control loop."""

    def __init__(self, env: RobotEnv) -> None:
        self.env = env
        self.newest: Observation | None = None
        self.num_seen = 0
        """Observations so far."""
        self.num_ticks = 0
        self.seen_s = 0.0
        """Monotonic time of the newest observation, whoever looked."""
        self.looped_s = 0.0
        """Monotonic time of the control loop's newest observation."""
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
        self._show(observation, by_loop=True)
        return observation

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        self.num_ticks += 1
        self._show(transition.observation, by_loop=True)
        return transition

    def look_again(self) -> None:
        """Looks where the control loop has not looked for a while and the robot can be looked at meanwhile.

        Called in the page's thread. Between two episodes, and while the loop waits for the learner or for a person,
        the pictures stay live; those of a robot that cannot be looked at stay as they are, and grow old.
        """
        if self.newest is None or time.monotonic() - self.looped_s < LOOK_AFTER_S:
            return
        with contextlib.suppress(RobotError):  # A silent sensor: the last picture stays, and grows old.
            observation = look(self.env)
            if observation is not None:
                self._show(observation)

    def render(self) -> np.ndarray:
        """Returns a picture of the scene."""
        return self.env.render()

    def close(self) -> None:
        """Frees the robot."""
        self.env.close()

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the robot has, e.g. `keeps_time`.
        return getattr(self.env, name)

    def _show(self, observation: Observation, *, by_loop: bool = False) -> None:
        self.newest, self.seen_s = observation, time.monotonic()
        self.num_seen += 1
        if by_loop:
            self.looped_s = self.seen_s
