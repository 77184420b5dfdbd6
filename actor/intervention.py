"""Who is in control at each tick: the policy or the person beside the robot.

    policy acts ── the person commands: the rest of the chunk is dropped ──► person acts
         ▲                                                                        │
         └────────────── the person lets go: a new chunk is asked for ────────────┘

While the person acts, the policy is not asked. A person who says HOLD keeps the robot still: nobody acts.
"""

import math
from dataclasses import dataclass

import numpy as np

from actor.plan import NO_POLICY, ChunkNote, ChunkPolicy, Plan, SteppedPlan
from actor.realtime_plan import RealTimePlan
from robot_infra.interfaces import HOLD, Operator, Transition
from serl_launcher.types import Observation, Outcome, Source

__all__ = ["NO_POLICY", "ChunkPolicy", "Control", "Decision"]


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
    chunk_index: int = -1
    """Which action of its chunk it is; -1 where the policy did not act."""


@dataclass(kw_only=True, slots=True)
class Control:
    """Merges the chunks of a policy with the commands of a person; either may be absent."""

    policy: ChunkPolicy | None
    operator: Operator | None
    execution_horizon: int
    """Actions of a chunk that are executed before the next is asked for."""
    patience_s: float = math.inf
    """How long a tick waits for the policy; a real robot rather holds still."""
    plan: Plan | None = None
    """Turns chunks into actions; None: execute, then ask and wait."""
    num_takeovers: int = 0
    """Takeovers in this episode."""
    num_human_steps: int = 0
    """Ticks of this episode at which the person acted."""
    newest: Decision | None = None
    """What was decided last; None where nobody had a command."""
    _person_acts: bool = False

    def __post_init__(self) -> None:
        if self.plan is None and self.policy is not None:
            self.plan = SteppedPlan(
                policy=self.policy, execution_horizon=self.execution_horizon, patience_s=self.patience_s
            )

    def begin(self, observation: Observation) -> None:
        """Starts an episode; waits for the first chunk, because a robot at its start pose can wait safely."""
        self.num_takeovers = self.num_human_steps = 0
        self.newest = None
        self._person_acts = False
        if self.operator is not None:
            self.operator.reset()
        if self.plan is not None:
            self.plan.begin(observation)

    def decide(self, observation: Observation) -> Decision | None:
        """Returns what to do now; None where neither person nor policy has a command: hold still."""
        self.newest = self._decide(observation)
        return self.newest

    def _decide(self, observation: Observation) -> Decision | None:
        planned = self.plan.look() if self.plan is not None else None
        proposal = None if planned is None else planned.action
        command = self.operator.command(observation, proposal) if self.operator is not None else None
        if command is HOLD:
            self._person_acts = False
            if self.plan is not None:
                self.plan.drop()
            return None
        if command is not None:
            version = NO_POLICY if planned is None else planned.policy_version
            return self._follow_person(command, proposal, version)
        self._person_acts = False
        return self._follow_policy(observation)

    def judge(self, transition: Transition) -> tuple[Outcome, str]:
        """Returns the outcome of the episode and who judged it."""
        if transition.outcome is not None:
            return transition.outcome, transition.judged_by
        said = self.operator.judge(transition) if self.operator is not None else None
        if said is not None:
            return said, "human"
        return (Outcome.SUCCESS if transition.success else Outcome.FAILURE), "environment"

    def chunk_notes(self) -> list[ChunkNote]:
        """Returns how the chunks of this episode came."""
        return [] if self.plan is None else list(self.plan.notes)

    def figures(self) -> dict[str, float]:
        """Returns latency and held ticks, where chunks are asked for ahead of time."""
        return self.plan.figures() if isinstance(self.plan, RealTimePlan) else {}

    def _follow_person(self, command: np.ndarray, proposal: np.ndarray | None, version: int) -> Decision:
        if not self._person_acts and self.policy is not None:
            self.num_takeovers += 1
        self._person_acts = True
        self.num_human_steps += 1
        if self.plan is not None:
            self.plan.drop()
        return Decision(action=command, source=Source.HUMAN, policy_version=version, proposal=proposal)

    def _follow_policy(self, observation: Observation) -> Decision | None:
        planned = self.plan.take(observation) if self.plan is not None else None
        if planned is None:
            return None
        return Decision(
            action=planned.action, source=Source.POLICY, policy_version=planned.policy_version,
            chunk_index=planned.index,
        )  # fmt: skip
