"""One simulated robot that acts by a real-time plan, one tick at a time; whoever owns it owns the clock."""

from dataclasses import dataclass, field

import numpy as np

from actor.realtime_plan import RealTimePlan
from robot_infra import safety
from robot_infra.interfaces import RobotEnv
from serl_launcher.types import Observation
from tools.bench_latency.seams import Episode, joints_of, position_jumps, velocity_jumps


@dataclass(kw_only=True, slots=True)
class Robot:
    """Plays one episode after the other."""

    env: RobotEnv
    plan: RealTimePlan
    tick_s: float
    observation: Observation | None = None
    seed: int = 0
    _gate: safety.Gate = field(init=False)
    _commands: list[np.ndarray] = field(default_factory=list)
    _held_before: int = 0

    def __post_init__(self) -> None:
        self._gate = safety.Gate(safety.limits_of(self.env.spec, []))

    def begin(self, seed: int) -> None:
        """Starts an episode; the robot stands until the first chunk is there."""
        self.seed = seed
        self._commands.clear()
        self._held_before = self.plan.num_held
        self.observation = self.env.reset(seed=seed)
        self._gate.begin(safety.standing_still(self.env.spec, self.observation.state))
        self.plan.begin(self.observation)

    def tick(self) -> Episode | None:
        """Executes one tick; returns the episode where it is over."""
        assert self.observation is not None, "begin comes first"
        self.plan.look()
        planned = self.plan.take(self.observation)
        command = self._gate.admit(planned.action) if planned is not None else self._held()
        transition = self.env.step(command)
        self._gate.note_executed(transition.executed_action)
        self._commands.append(np.asarray(transition.executed_action))
        self.observation = transition.observation
        return self._end(is_success=transition.success) if transition.terminated or transition.truncated else None

    def _held(self) -> np.ndarray:
        command = self._gate.hold()
        if command is not None:
            return command
        assert self.observation is not None
        return self._commands[-1] if self._commands else np.asarray(self.observation.state, np.float32)

    def _end(self, *, is_success: bool) -> Episode:
        joints, notes = joints_of(self.env.spec), list(self.plan.notes)
        at_seams, elsewhere = velocity_jumps(self._commands, notes, joints, tick_s=self.tick_s)
        self.plan.drop()
        return Episode(
            seed=self.seed, is_success=bool(is_success), num_ticks=len(self._commands),
            num_held=self.plan.num_held - self._held_before,
            position_jumps=position_jumps(notes, joints), velocity_jumps=at_seams, velocity_changes=elsewhere,
        )  # fmt: skip
