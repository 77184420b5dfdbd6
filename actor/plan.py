"""What the policy wants at the coming ticks: chunks that were asked for, turned into one action per tick."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from serl_launcher.errors import SafetyError
from serl_launcher.types import ActionChunk, Observation

NO_POLICY = -1
"""Policy version of a tick at which no policy was asked."""


@dataclass(kw_only=True, slots=True)
class Planned:
    """The policy's action for one tick, and where it comes from."""

    action: np.ndarray
    """float32 [A], robot units."""
    policy_version: int
    index: int
    """Which action of its chunk it is."""


class Plan(Protocol):
    """Actions of a policy, tick by tick. Each tick calls `look` once, then `take` or `drop`."""

    def begin(self, observation: Observation) -> None:
        """Starts an episode; waits for the first chunk, because a robot at its start pose can wait safely."""
        ...

    def look(self) -> Planned | None:
        """Begins the next tick; returns what is planned for it, None where nothing is."""
        ...

    def take(self, observation: Observation) -> Planned | None:
        """Returns the action of this tick, asking the policy where it must; None: hold still."""
        ...

    def drop(self) -> None:
        """Forgets everything planned or asked for: a person has taken over."""
        ...


class ChunkPolicy(Protocol):
    """Whatever proposes actions: the learner, or weights in this process."""

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        """Returns the next actions; None where none came within `patience_s` seconds or the actor is to stop."""
        ...

    def forget(self) -> None:
        """Drops a request that is under way: the robot went on, its answer would be out of date."""
        ...


@dataclass(kw_only=True, slots=True)
class SteppedPlan:
    """Executes the beginning of a chunk, then asks for the next and waits for it: for simulators, whose time waits."""

    policy: ChunkPolicy
    execution_horizon: int
    """Actions of a chunk that are executed before the next is asked for."""
    patience_s: float = math.inf
    """How long a tick waits for the policy."""
    _planned: deque[np.ndarray] = field(default_factory=deque)
    _policy_version: int = NO_POLICY
    _index: int = 0

    def begin(self, observation: Observation) -> None:
        """Asks for the first chunk and waits for it."""
        self.drop()
        self._extend(self.policy.chunk_for(observation))

    def look(self) -> Planned | None:
        """Returns the next action of the chunk, None at its end."""
        if not self._planned:
            return None
        return Planned(action=self._planned[0], policy_version=self._policy_version, index=self._index)

    def take(self, observation: Observation) -> Planned | None:
        """Returns the next action; at the end of a chunk it asks for another."""
        if not self._planned:
            self._extend(self.policy.chunk_for(observation, patience_s=self.patience_s))
        planned = self.look()
        if planned is not None:
            self._planned.popleft()
            self._index += 1
        return planned

    def drop(self) -> None:
        """Forgets the chunk."""
        self._planned.clear()
        self._policy_version = NO_POLICY
        self.policy.forget()

    def _extend(self, chunk: ActionChunk | None) -> None:
        if chunk is not None:
            check_finite(chunk)
            self._planned.extend(chunk.actions[: self.execution_horizon])
            self._policy_version, self._index = chunk.policy_version, 0


def check_finite(chunk: ActionChunk) -> None:
    """Raises SafetyError where a chunk is not made of numbers."""
    if not np.isfinite(chunk.actions).all():
        raise SafetyError(f"Policy {chunk.policy_version} proposes actions that are not finite. The robot holds.")
