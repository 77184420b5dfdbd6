"""The control loop: one robot, one episode after the other."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from actor.braking import brake
from actor.clearance import Clearance
from actor.intervention import NO_POLICY, Control
from actor.pacer import Pacer
from actor.progress import EpisodeSummary, Progress
from actor.recorder import Recorder
from actor.recovery import Recovery
from actor.rewards.bus import RewardBus, Verdict
from actor.timings import HELD, TimingLog
from robot_infra import safety
from robot_infra.interfaces import RobotEnv, Transition, emergency_stop, keeps_time
from serl_launcher.errors import RecordingError, RobotError, SafetyError, SpoolFull
from serl_launcher.types import Observation, Outcome

logger = logging.getLogger(__name__)

OnTick = Callable[[], None]

DISK_RETRY_S = 0.5


@dataclass(kw_only=True, slots=True)
class _Tally:
    """What is counted during one episode."""

    number: int
    started_s: float
    observation: Observation
    """The newest."""
    outcome: Outcome = Outcome.ABORTED
    labelled_by: str = ""
    policy_version: int = NO_POLICY


@dataclass(kw_only=True, slots=True)
class Rollout:
    """Plays episodes and records them until there are enough or somebody says stop."""

    env: RobotEnv
    control: Control
    gate: safety.Gate
    """What every command passes; remembers how the robot moves, and its faults (`gate_of`)."""
    recorder: Recorder
    progress: Progress
    clearance: Clearance
    pacer: Pacer
    bus: RewardBus = field(default_factory=RewardBus)
    """Where people judge; it is told when an episode begins and ends for them."""
    seed_offset: int = 0
    timings: TimingLog | None = None
    """Where the durations of every tick go."""
    recovery: Recovery | None = None
    """Who clears faults; None: a fault ends the actor."""
    _is_beginning: bool = False

    @property
    def waits_for(self) -> str:
        """What keeps the loop from going on; empty while it does."""
        return self.clearance.waits_for or ("for the policy's first actions." if self._is_beginning else "")

    def run(self, *, num_episodes: int, after_episode: Callable[[EpisodeSummary], None], on_tick: OnTick) -> None:
        """Plays until `num_episodes` have finished over the whole life of this actor; 0: until told to stop."""
        while self.progress.claim(num_episodes):
            try:
                if not self.clearance.wait_for_next_episode(is_needed=self._has_fault):
                    return
                self.gate.require_clear()  # Not even a reset may move a robot with a fault.
                episode = self.play_episode(on_tick)
            except SpoolFull as exc:
                self._wait_for_room(exc)
                continue
            except (SafetyError, RobotError) as exc:
                if isinstance(exc, RobotError):  # A silent arm or leader, a lost connection: a person has to look.
                    self.gate.trip(safety.FaultKind.CONNECTION, str(exc))
                if self.recovery is None:
                    raise
                self.recovery.wait(
                    exc, self.env, self.gate, is_stopping=self.clearance.is_stopping, on_tick=on_tick
                )  # fmt: skip
                continue
            else:
                self.progress.finish(episode)
            finally:
                self.progress.release()
            after_episode(episode)

    def _has_fault(self) -> bool:
        return self.gate.fault is not None

    def _wait_for_room(self, reason: SpoolFull) -> None:
        """Waits until the spool takes events again; what it has of the cut-off episode is closed as aborted."""
        logger.error("The episode is cut off, the robot holds still: %s", reason)
        while not self.clearance.is_stopping():
            try:
                self.recorder.close_abandoned(only_own=True)
            except SpoolFull:
                time.sleep(DISK_RETRY_S)
            else:
                return

    def write_refused_end(self, patience_s: float) -> None:
        """Tries for a while to write the end of the last episode where the disk refused it."""
        give_up_s = time.monotonic() + patience_s
        while self.recorder.has_refused_end:
            try:
                self.recorder.close_abandoned(only_own=True)
            except SpoolFull as exc:
                if time.monotonic() > give_up_s:
                    logger.error("The last episode has no end yet; the next start closes it as aborted: %s", exc)
                    return
                time.sleep(DISK_RETRY_S)

    def play_episode(self, on_tick: OnTick) -> EpisodeSummary:
        """Plays one episode and records it, also when it is cut short: by a stop, an error or a fault."""
        number, started_s = self.progress.next_number(), time.monotonic()
        seed = self.seed_offset + number
        observation = self.env.reset(seed=seed)
        tally = _Tally(number=number, started_s=started_s, observation=observation)
        self.gate.begin(safety.standing_still(self.env.spec, observation.state))
        self.recorder.begin(number, seed=seed, prompt=observation.prompt)
        if self.timings is not None:
            self.timings.begin()
        try:
            with self._coming_to_rest():
                self._play(tally, on_tick)
        except BaseException:
            with contextlib.suppress(SpoolFull, RecordingError):  # Neither must hide what went wrong.
                self.recorder.end(tally.observation, Outcome.ABORTED, "")
            raise
        finally:
            if self.timings is not None:
                self.timings.end(number, self.control.chunk_notes())
        # The outcome is known before the last event is written, so a fault can never look like a success.
        self.recorder.end(tally.observation, tally.outcome, tally.labelled_by)
        return self._summary(tally)

    @contextlib.contextmanager
    def _coming_to_rest(self) -> Iterator[None]:
        """However an episode ends, only a person judges it from then on, and a moving robot brakes, unrecorded.

        A simulator whose episode is over needs no brakes: its time stands still.
        """
        try:
            yield
        except BaseException:
            self.bus.end()
            self._brake()
            raise
        self.bus.end()
        if keeps_time(self.env):
            self._brake()

    def _play(self, tally: _Tally, on_tick: OnTick) -> None:
        self._begin_control(tally.observation)
        self.bus.defer()
        self.pacer.start()
        is_over = False
        while not is_over and not self.clearance.is_stopping():
            transition, was_decided = self._tick(tally)
            tally.observation = transition.observation
            is_over = transition.terminated or transition.truncated
            if is_over and (was_decided or transition.outcome is not None):
                self._judge(tally, transition)
            self.pacer.finish_tick()
            on_tick()

    def _judge(self, tally: _Tally, transition: Transition) -> None:
        outcome, by = self.control.judge(transition)
        if self.recorder.num_steps > 0:
            tally.outcome, tally.labelled_by = outcome, by
        else:  # Nothing of this episode was to be seen, so whoever judges means the one before.
            self.bus.post(Verdict(outcome=outcome, by=by))

    def _begin_control(self, observation: Observation) -> None:
        self._is_beginning = True
        try:
            self.control.begin(observation)
        finally:
            self._is_beginning = False

    def _tick(self, tally: _Tally) -> tuple[Transition, bool]:
        """Commands the robot once; returns what came of it, and whether somebody decided it (it is recorded then)."""
        observation, began_s = tally.observation, time.monotonic()
        decision = self.control.decide(observation)
        self.gate.require_clear()  # Somebody may have stopped the robot while the loop waited for the policy.
        decided_s = time.monotonic()
        if decision is None:
            transition = self._hold(observation)
            self._note_tick(began_s, decided_s, HELD)
            return transition, False
        transition = self.env.step(self.gate.admit(decision.action))
        self._note_tick(began_s, decided_s, decision.chunk_index)
        self.recorder.record(observation, decision, transition)
        self.gate.note_executed(transition.executed_action)
        tally.policy_version = max(tally.policy_version, decision.policy_version)
        return transition, True

    def _note_tick(self, began_s: float, decided_s: float, chunk_index: int) -> None:
        if self.timings is not None:
            self.timings.note_tick(began_s, decided_s, time.monotonic(), chunk_index)

    def _hold(self, observation: Observation) -> Transition:
        """Keeps the robot where it was last commanded to; nobody decided that, so nobody should learn from it."""
        if safety.standing_still(self.env.spec, observation.state) is None and self.gate.last_command is not None:
            # The last motion again would be no rest.
            return self.env.step(self.gate.admit(np.zeros(self.env.spec.action_dim, np.float32)))
        command = self.gate.hold()
        if command is None:
            return _nothing_happened(observation, self.env.spec.action_dim)
        return self.env.step(command)

    def _brake(self) -> None:
        brake(self.env, self.gate, after_tick=self.pacer.finish_tick)

    def _summary(self, tally: _Tally) -> EpisodeSummary:
        return EpisodeSummary(
            number=tally.number,
            outcome=tally.outcome,
            num_steps=self.recorder.num_steps,
            num_human_steps=self.control.num_human_steps,
            num_takeovers=self.control.num_takeovers,
            policy_version=tally.policy_version,
            duration_s=time.monotonic() - tally.started_s,
        )


def gate_of(env: RobotEnv, limits: safety.SafetyLimits) -> safety.Gate:
    """Returns the gate of a robot: an emergency stop that trips it reaches the robot by its driver, at once."""
    return safety.Gate(limits, on_emergency_stop=partial(emergency_stop, env))


def _nothing_happened(observation: Observation, action_dim: int) -> Transition:
    return Transition(
        observation=observation,
        reward=0.0,
        terminated=False,
        truncated=False,
        success=False,
        executed_action=np.zeros(action_dim, np.float32),
    )
