"""A small cost for every opening or closing, so that a policy does not flutter with the gripper (HIL-SERL)."""

from dataclasses import replace

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition, look
from robot_infra.wrappers.wrapped import Wrapped, indices
from serl_launcher.errors import ConfigError
from serl_launcher.types import Observation


class GripperPenalty(Wrapped):
    """A tick at which the command crosses the middle of the gripper's range costs `penalty`, whoever judges."""

    def __init__(self, env: RobotEnv, *, grippers: list[str], penalty: float = 0.02) -> None:
        """Takes the action names of the grippers; raises ConfigError for an unknown one or a negative penalty."""
        super().__init__(env)
        if penalty < 0:
            raise ConfigError(f"gripper_penalty: penalty must be 0 or more, got {penalty}.")
        self._grippers, self._penalty = indices(env.spec.action_names, grippers, "gripper_penalty"), penalty
        low, high = env.spec.action_bounds()
        self._middle = ((low + high) / 2)[self._grippers]
        self._was_open: np.ndarray | None = None

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode; its first command costs nothing."""
        self._was_open = None
        return self.env.reset(seed=seed)

    def look(self) -> Observation | None:
        """Returns what can be seen meanwhile."""
        return look(self.env)

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        is_open = transition.executed_action[self._grippers] > self._middle
        num_toggles = 0 if self._was_open is None else int((is_open != self._was_open).sum())
        self._was_open = is_open
        cost = self._penalty * num_toggles
        return replace(transition, reward=transition.reward - cost, cost=transition.cost + cost)
