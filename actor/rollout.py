"""The control loop: one robot, one episode after the other."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from actor.clearance import Clearance
from actor.intervention import NO_POLICY, Control
from actor.pacer import Pacer
from actor.progress import EpisodeSummary, Progress
from actor.recorder import Recorder
from robot_infra import safety
from robot_infra.interfaces import RobotEnv, Transition
from serl_launcher.types import Observation, Outcome, Source

logger = logging.getLogger(__name__)

OnTick = Callable[[], None]


@dataclass(kw_only=True, slots=True)
class _Tally:
    """What is counted during one episode."""

    number: int
    started_s: float = field(default_factory=time.monotonic)
    num_human_steps: int = 0
    policy_version: int = NO_POLICY


@dataclass(kw_only=True, slots=True)
class Rollout:
    """Plays episodes and records them until there are enough or somebody says stop."""

    env: RobotEnv
    control: Control
    limits: safety.SafetyLimits
    recorder: Recorder
    progress: Progress
    clearance: Clearance
    pacer: Pacer
    seed_offset: int = 0
    _last_command: np.ndarray | None = None

    def run(self, *, num_episodes: int, after_episode: Callable[[EpisodeSummary], None], on_tick: OnTick) -> None:
        """Plays until `num_episodes` have finished over the whole life of this actor; 0: until told to stop."""
        while num_episodes == 0 or self.progress.num_finished < num_episodes:
            if not self.clearance.wait_for_next_episode():
                return
            episode = self.play_episode(on_tick)
            self.progress.finish(episode)
            after_episode(episode)

    def play_episode(self, on_tick: OnTick) -> EpisodeSummary:
        """Plays one episode and records it, also when it is cut short: by a stop, an error or a fault."""
        tally = _Tally(number=self.progress.next_number())
        seed = self.seed_offset + tally.number
        observation = self.env.reset(seed=seed)
        self._last_command = safety.standing_still(self.env.spec, observation.state)
        self.recorder.begin(tally.number, seed=seed, prompt=observation.prompt)
        outcome, labelled_by = Outcome.ABORTED, ""
        try:
            self.control.begin(observation)
            self.pacer.start()
            is_over = False
            while not is_over and not self.clearance.is_stopping():
                transition, was_decided = self._tick(observation, tally)
                observation = transition.observation
                is_over = transition.terminated or transition.truncated
                if is_over and was_decided:
                    outcome, labelled_by = self.control.judge(transition)
                self.pacer.finish_tick()
                on_tick()
        finally:
            # The outcome is known before the last event is written, so a fault can never look like a success.
            self.recorder.end(observation, outcome, labelled_by)
        return self._summary(tally, outcome)

    def _tick(self, observation: Observation, tally: _Tally) -> tuple[Transition, bool]:
        """Commands the robot once; returns what came of it, and whether somebody decided it (it is recorded then)."""
        decision = self.control.decide(observation)
        if decision is None:
            return self._hold(observation), False
        transition = self.env.step(safety.admit(decision.action, self._last_command, self.limits))
        self.recorder.record(observation, decision, transition)
        self._last_command = transition.executed_action
        tally.num_human_steps += decision.source is Source.HUMAN
        tally.policy_version = max(tally.policy_version, decision.policy_version)
        return transition, True

    def _hold(self, observation: Observation) -> Transition:
        """Keeps the robot where it was last commanded to; nobody decided that, so nobody should learn from it."""
        if self._last_command is None:
            return _nothing_happened(observation, self.env.spec.action_dim)
        return self.env.step(safety.admit(self._last_command, self._last_command, self.limits))

    def _summary(self, tally: _Tally, outcome: Outcome) -> EpisodeSummary:
        return EpisodeSummary(
            number=tally.number,
            outcome=outcome,
            num_steps=self.recorder.num_steps,
            num_human_steps=tally.num_human_steps,
            num_takeovers=self.control.num_takeovers,
            policy_version=tally.policy_version,
            duration_s=time.monotonic() - tally.started_s,
        )


def _nothing_happened(observation: Observation, action_dim: int) -> Transition:
    return Transition(
        observation=observation,
        reward=0.0,
        terminated=False,
        truncated=False,
        success=False,
        executed_action=np.zeros(action_dim, np.float32),
    )
