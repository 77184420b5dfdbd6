"""A policy that knows nothing (`actor.policy=random`): tries an environment out without any weights."""

import math

import numpy as np

from robot_infra import safety
from serl_launcher.specs import RobotSpec
from serl_launcher.types import ActionChunk, Observation

NO_VERSION = -1
STEP = 0.02
"""Largest step of a position per tick, as a share of its range."""


class RandomPolicy:
    """Uniform actions; where actions are positions, a random walk from where the robot stands."""

    def __init__(self, spec: RobotSpec, *, seed: int, horizon: int = 8) -> None:
        """Takes the robot, the seed and how many actions a chunk has; satisfies `actor.plan.ChunkPolicy`."""
        self._spec, self._horizon = spec, horizon
        self._rng = np.random.default_rng(seed)

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk:
        """Returns the next actions; never waits."""
        del patience_s
        low, high = self._spec.action_bounds()
        here = safety.standing_still(self._spec, observation.state)
        wishes = self._rng.uniform(low, high, (self._horizon, len(low)))
        if here is not None:
            steps = STEP * (high - low) * self._rng.uniform(-1, 1, wishes.shape)
            wishes = np.clip(here + np.cumsum(steps, axis=0), low, high)
        return ActionChunk(actions=wishes.astype(np.float32), policy_version=NO_VERSION)

    def forget(self) -> None:
        """Nothing is under way."""
