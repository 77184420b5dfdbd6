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
MAX_NOTED = 10_000


@dataclass(kw_only=True, slots=True)
class Planned:
    """The policy's action for one tick, and where it comes from."""

    action: np.ndarray
    """float32 [A], robot units."""
    policy_version: int
    index: int
    """Which action of its chunk it is."""


@dataclass(kw_only=True, slots=True)
class ChunkNote:
    """How one chunk came."""

    tick: int
    """Tick of its observation."""
    delay_ticks: int
    """Ticks between its observation and its first executed action."""
    jump: float
    """Largest difference to what the old chunk had planned for the same tick, robot units; NaN: it had nothing."""
    timings_ms: dict[str, float]
    difference: np.ndarray | None = None
    """float32 [A]: what is planned for that tick with the chunk, less what was without; None: nothing was."""


class Plan(Protocol):
    """Actions of a policy, tick by tick. Each tick calls `look` once, then `take` or `drop`."""

    notes: deque[ChunkNote]
    """Chunks of this episode."""

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
    notes: deque[ChunkNote] = field(default_factory=lambda: deque(maxlen=MAX_NOTED))
    """Chunks of this episode."""
    _chunk: ActionChunk | None = None
    _index: int = 0
    """Which action of the chunk comes next."""
    _tick: int = -1

    def begin(self, observation: Observation) -> None:
        """Asks for the first chunk and waits for it."""
        self.drop()
        self.notes.clear()
        self._tick = -1
        self._take_over(self.policy.chunk_for(observation))

    def look(self) -> Planned | None:
        """Begins the next tick; returns the next action of the chunk, None at its end."""
        self._tick += 1
        return self._planned()

    def take(self, observation: Observation) -> Planned | None:
        """Returns the next action; at the end of a chunk it asks for another."""
        planned = self._planned()
        if planned is None:
            self._take_over(self.policy.chunk_for(observation, patience_s=self.patience_s))
            planned = self._planned()
        if planned is not None:
            self._index += 1
        return planned

    def drop(self) -> None:
        """Forgets the chunk."""
        self._chunk = None
        self.policy.forget()

    def _planned(self) -> Planned | None:
        chunk = self._chunk
        if chunk is None or self._index >= min(self.execution_horizon, len(chunk.actions)):
            return None
        return Planned(action=chunk.actions[self._index], policy_version=chunk.policy_version, index=self._index)

    def _take_over(self, chunk: ActionChunk | None) -> None:
        if chunk is None:
            return
        check_finite(chunk)
        old = self._chunk.actions[self._index :] if self._chunk is not None else []
        difference = chunk.actions[0] - old[0] if len(old) else None
        jump = float("nan") if difference is None else float(np.abs(difference).max())
        tick = max(self._tick, 0)
        self.notes.append(
            ChunkNote(
                tick=tick, delay_ticks=0, jump=jump, timings_ms=dict(chunk.timings_ms), difference=difference
            )
        )  # fmt: skip
        self._chunk, self._index = chunk, 0


def check_finite(chunk: ActionChunk) -> None:
    """Raises SafetyError where a chunk is not made of numbers."""
    if not np.isfinite(chunk.actions).all():
        raise SafetyError(f"Policy {chunk.policy_version} proposes actions that are not finite. The robot holds.")
