"""Rewards of nearness to a stated goal (Hi-ORS's `naive`): no camera, no classifier, nobody who watches."""

from collections.abc import Mapping

import numpy as np

from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class GoalRewards:
    """Each step earns (scale - d) / scale, and 1 more where d < radius; d is the distance of some joints to the goal.

    It ends no episode and gives no label: name a judge beside it.
    """

    def __init__(self, goal: Mapping[str, float], spec: RobotSpec, *, scale: float, radius: float) -> None:
        """Takes values of states by their names; raises ConfigError where the robot has no such state."""
        unknown = [name for name in goal if name not in spec.state_names]
        if unknown or not goal:
            raise ConfigError(
                f"actor.rewards.goal must give values of some of {list(spec.state_names)}, got {sorted(goal)}."
            )
        self._places = [spec.state_names.index(name) for name in goal]
        self._values = np.array(list(goal.values()), np.float32)
        self._scale, self._radius = scale, radius
        self.reward = 0.0

    def begin(self) -> None:
        """Nothing of the episode before counts."""
        self.reward = 0.0

    def look(self, observation: Observation) -> None:
        """Measures how far the last action left the robot from the goal."""
        distance = float(np.linalg.norm(observation.state[self._places] - self._values))
        self.reward = (self._scale - distance) / self._scale + (distance < self._radius)
