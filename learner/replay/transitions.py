"""Transitions in memory, for learning in one process with a fast simulator. What robots record is in `reader`.

Legend: B batch, N steps kept, C cameras, S state width, A action width.
"""

import numpy as np

from learner.replay.batch import Batch
from learner.returns import chunk_returns
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class TransitionMemory:
    """The newest steps, each with the observation that really followed it."""

    def __init__(self, spec: RobotSpec, *, capacity: int, discount: float) -> None:
        """Keeps `capacity` steps of a robot whose cameras have one size."""
        self.spec = spec
        self.capacity = capacity
        self._discount = discount
        self._num_added = 0
        self._state = np.zeros((capacity, spec.state_dim), np.float32)
        self._next_state = np.zeros_like(self._state)
        self._action = np.zeros((capacity, spec.action_dim), np.float32)
        self._reward = np.zeros(capacity, np.float32)
        self._is_terminal = np.zeros(capacity, bool)
        shape = spec.cameras[0].shape if spec.cameras else (1, 1, 3)
        self._images = np.zeros((capacity, len(spec.cameras), *shape), np.uint8)
        self._next_images = np.zeros_like(self._images)

    def __len__(self) -> int:
        """Returns the number of steps kept, N."""
        return min(self._num_added, self.capacity)

    @property
    def states(self) -> np.ndarray:
        """States of the steps kept, float32 [N, S]; a view."""
        return self._state[: len(self)]

    def add(
        self, observation: Observation, action: np.ndarray, reward: float, following: Observation, *, terminated: bool
    ) -> None:
        """Adds one step.

        Args:
            observation: Before it.
            action: Executed, float32 [A].
            reward: For it.
            following: What was observed after it, also where the episode ended with it.
            terminated: Whether the task ended with it; a time limit does not count.
        """
        slot = self._num_added % self.capacity
        self._state[slot], self._next_state[slot] = observation.state, following.state
        self._action[slot], self._reward[slot], self._is_terminal[slot] = action, reward, terminated
        for number, camera in enumerate(self.spec.camera_names):
            self._images[slot, number] = observation.images[camera]
            self._next_images[slot, number] = following.images[camera]
        self._num_added += 1

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """Returns `count` steps drawn with replacement, as chunks of one action."""
        slots = rng.integers(0, len(self), count)
        is_pad = np.zeros((count, 1), bool)
        returns = chunk_returns(
            self._reward[slots, None], self._is_terminal[slots, None], is_pad, discount=self._discount
        )
        return Batch(
            images=self._images[slots],
            state=self._state[slots],
            prompts=[""] * count,
            actions=self._action[slots, None],
            is_pad=is_pad,
            reward=returns.reward,
            discount=returns.discount,
            is_terminal=returns.is_terminal,
            next_images=self._next_images[slots],
            next_state=self._next_state[slots],
        )
