"""Cuts long episodes into segments, so that a learner has the steps of each while the task goes on."""

from dataclasses import replace

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition, look
from robot_infra.wrappers.wrapped import Wrapped
from serl_launcher.errors import ConfigError
from serl_launcher.types import Observation, Outcome


class Segments(Wrapped):
    """Ends an episode after `num_steps` ticks as cut off, and goes on from there at the next reset.

    For value-based algorithms that learn from the reward of every step (a value goes on over a cut: truncation does not
    stop bootstrapping) and for simulators: a robot that keeps time brakes at every cut. A segment that the task did not
    end has no outcome, so what is accepted by outcome never contains it.
    """

    def __init__(self, env: RobotEnv, *, num_steps: int) -> None:
        """Cuts after so many ticks; raises ConfigError for less than one."""
        super().__init__(env)
        if num_steps < 1:
            raise ConfigError(f"segments: num_steps must be 1 or more, got {num_steps}.")
        self._num_steps = num_steps
        self._num_played = 0
        self._goes_on_from: Observation | None = None

    def reset(self, *, seed: int) -> Observation:
        """Goes on where the last segment was cut; otherwise begins the episode of that seed."""
        observation, self._goes_on_from = self._goes_on_from, None
        self._num_played = 0
        return self.env.reset(seed=seed) if observation is None else observation

    def look(self) -> Observation | None:
        """Returns what can be seen meanwhile."""
        return look(self.env)

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        self._num_played += 1
        is_over = transition.terminated or transition.truncated
        if is_over or self._num_played < self._num_steps:
            return transition
        self._goes_on_from = transition.observation
        outcome = Outcome.UNLABELLED if transition.outcome is None else transition.outcome
        return replace(transition, truncated=True, outcome=outcome)
