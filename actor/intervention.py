"""Who is in control at each tick: the policy or the person beside the robot.

    policy acts ── the person commands: the rest of the chunk is dropped ──► person acts
         ▲                                                                        │
         └────────────── the person lets go: a new chunk is asked for ────────────┘

While the person acts, the policy is not asked.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from robot_infra.interfaces import Operator, Transition
from serl_launcher.errors import SafetyError
from serl_launcher.types import ActionChunk, Observation, Outcome, Source

NO_POLICY = -1
"""Policy version of a tick at which no policy was asked."""


class ChunkPolicy(Protocol):
    """Whatever proposes actions: the learner, or weights in this process."""

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        """Returns the next actions; None where none came within `patience_s` seconds or the actor is to stop."""
        ...

    def forget(self) -> None:
        """Drops a request that is under way: the robot went on, its answer would be out of date."""
        ...


@dataclass(kw_only=True, slots=True)
class Decision:
    """What to do at this tick, and who decided it."""

    action: np.ndarray
    """float32 [A], in robot units."""
    source: Source
    policy_version: int
    """Version of the weights that proposed an action at this tick, or NO_POLICY."""
    proposal: np.ndarray | None = None
    """What the policy proposed where a person overrode it, float32 [A]."""


@dataclass(kw_only=True, slots=True)
class Control:
    """Merges the chunks of a policy with the commands of a person; either may be absent."""

    policy: ChunkPolicy | None
    operator: Operator | None
    execution_horizon: int
    """Actions of a chunk that are executed before the next is asked for."""
    patience_s: float = math.inf
    """How long a tick waits for the policy; a real robot rather holds still."""
    num_takeovers: int = 0
    """Takeovers in this episode."""
    _planned: deque[np.ndarray] = field(default_factory=deque)
    _policy_version: int = NO_POLICY
    _person_acts: bool = False

    def begin(self, observation: Observation) -> None:
        """Starts an episode; waits for the first chunk, because a robot at its start pose can wait safely."""
        self.num_takeovers = 0
        self._person_acts = False
        self._drop_chunk()
        if self.operator is not None:
            self.operator.reset()
        if self.policy is not None:
            self._plan(self.policy.chunk_for(observation))

    def decide(self, observation: Observation) -> Decision | None:
        """Returns what to do now; None where neither person nor policy has a command: hold still."""
        proposal = self._planned[0] if self._planned else None
        command = self.operator.command(observation, proposal) if self.operator is not None else None
        if command is not None:
            return self._follow_person(command, proposal)
        self._person_acts = False
        return self._follow_policy(observation)

    def judge(self, transition: Transition) -> tuple[Outcome, str]:
        """Returns the outcome of the episode and who judged it."""
        if self.operator is not None:
            return self.operator.judge(transition), "human"
        return (Outcome.SUCCESS if transition.success else Outcome.FAILURE), "environment"

    def _follow_person(self, command: np.ndarray, proposal: np.ndarray | None) -> Decision:
        if not self._person_acts and self.policy is not None:
            self.num_takeovers += 1
        self._person_acts = True
        version = self._policy_version if proposal is not None else NO_POLICY
        self._drop_chunk()
        return Decision(action=command, source=Source.HUMAN, policy_version=version, proposal=proposal)

    def _follow_policy(self, observation: Observation) -> Decision | None:
        if not self._planned and self.policy is not None:
            self._plan(self.policy.chunk_for(observation, patience_s=self.patience_s))
        if not self._planned:
            return None
        return Decision(action=self._planned.popleft(), source=Source.POLICY, policy_version=self._policy_version)

    def _plan(self, chunk: ActionChunk | None) -> None:
        if chunk is not None:
            if not np.isfinite(chunk.actions).all():
                raise SafetyError(
                    f"Policy {chunk.policy_version} proposes actions that are not finite. The robot holds."
                )
            self._planned.extend(chunk.actions[: self.execution_horizon])
            self._policy_version = chunk.policy_version

    def _drop_chunk(self) -> None:
        self._planned.clear()
        self._policy_version = NO_POLICY
        if self.policy is not None:
            self.policy.forget()
