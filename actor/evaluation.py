"""The eval actor: a named checkpoint, fixed start states; nobody takes over unless that was asked for.

Start states come from fixed seeds and the noise of the policy from one seeded generator, so that an evaluation of the
same checkpoint on the same machine repeats itself exactly.

A verdict that is pressed after an episode, until the next one moves, is about that episode. A fault, a robot that falls
silent or a stop cuts an attempt off: it is not scored, and its start state is played again if the evaluation goes on.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from actor.evaluation_attempts import Attempts
from actor.evaluation_lane import Lane
from actor.evaluation_report import EpisodeResult
from actor.progress import Throttle
from actor.recovery import Recovery
from actor.rewards.bus import RewardBus
from actor.start_states import StartState
from actor.video import VideoFile
from robot_infra import safety
from robot_infra.interfaces import keeps_time
from serl_launcher.config.actor import EvaluationConfig
from serl_launcher.errors import ConfigError, RobotError, SafetyError
from serl_launcher.types import ActionChunk, Observation, Outcome

logger = logging.getLogger(__name__)

START_TOLERANCE = 0.05
"""Start states that differ by more than this from the recorded ones are reported, in units of the state."""
POLL_S = 0.05


class BatchPolicy(Protocol):
    """A policy that answers several robots at once."""

    def act(self, observations: list[Observation]) -> list[ActionChunk]:
        """Returns one chunk per observation."""
        ...


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """Plays every start state once, several side by side, with one policy call for all lanes."""

    policy: BatchPolicy
    lanes: Sequence[Lane]
    """One where people judge or the robot is real."""
    config: EvaluationConfig
    execution_horizon: int
    video_dir: Path
    recorded_starts: Sequence[StartState] | None = None
    """Start states of an earlier evaluation, to be used again."""
    prompts: Sequence[str] = ()
    """What a real robot may be told, by its configuration."""
    bus: RewardBus = field(default_factory=RewardBus)
    """Where people judge."""
    recovery: Recovery | None = None
    """Who clears faults; None: a fault ends the evaluation."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether somebody asked the evaluation to end."""
    on_result: Callable[[], object] = lambda: None
    """Called whenever `attempts` knows more."""
    last_verdict_s: float = 0.0
    """How long somebody may judge the last episode after its end."""
    attempts: Attempts = field(init=False)
    _starts: dict[int, StartState] = field(default_factory=dict)
    _told: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_episodes = self.config.num_episodes
        if self.recorded_starts is not None:
            num_episodes = min(num_episodes, len(self.recorded_starts))
        self.attempts = Attempts(num_episodes=num_episodes, num_attempts=self.config.num_attempts)

    def run(self) -> Sequence[EpisodeResult]:
        """Returns the results in the order of the seeds; what a stop or an error cut off is among them."""
        known_prompts = self._known_prompts() if self.config.wrong_prompt else []
        progress_due = Throttle(15.0)
        with ThreadPoolExecutor(1, thread_name_prefix="policy") as acting:
            try:
                while not self.is_stopping() and self._has_more():
                    for lane in self.lanes:
                        self._begin_next(lane, known_prompts)
                    self._play_chunks(acting)
                    self._hear_late()
                    if progress_due.is_due():
                        logger.info(
                            "Evaluated %d of %d episodes.", len(self.attempts.results), self.attempts.num_episodes
                        )
            finally:
                for lane in self._busy():
                    self._finish(lane, Outcome.ABORTED)
        return self.attempts.in_order()

    @property
    def starts(self) -> list[StartState]:
        """How the episodes began, in their order."""
        return [self._starts[episode] for episode in sorted(self._starts)]

    def _busy(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.is_busy]

    def _has_more(self) -> bool:
        if not self.attempts.waiting and not self._busy():
            self._await_last_verdict()
        return bool(self.attempts.waiting or self._busy())

    def _begin_next(self, lane: Lane, known_prompts: Sequence[str]) -> None:
        """Gives a lane that is idle the next start state."""
        if lane.is_busy or not self.attempts.waiting:
            return
        episode, attempt = self.attempts.begin()
        with self._guarded(lane):
            try:
                lane.begin(episode, attempt, seed=self._seed(episode))
            except (SafetyError, RobotError):
                self.attempts.put_back((episode, attempt))
                raise
            self._hear_late()  # What was said during the reset is about the episode before.
            lane.film(self._video(lane))
            self._note_start(lane)
            if known_prompts:
                self._told[episode] = _another(known_prompts, lane.prompt, turn=episode)

    def _play_chunks(self, acting: ThreadPoolExecutor) -> None:
        """Asks the policy once for all lanes, and plays what it answers."""
        busy = self._busy()
        if not busy:
            return
        seen = [self._seen_by_policy(lane) for lane in busy]
        if any(keeps_time(lane.env) for lane in busy):
            asked = acting.submit(self.policy.act, seen)
            for lane in busy:
                with self._guarded(lane):
                    self._rest_until(asked, lane)
            if self.is_stopping():
                return
            chunks = asked.result()
        else:
            chunks = self.policy.act(seen)
        for lane, chunk in zip(busy, chunks, strict=True):
            if not lane.is_busy:
                continue
            if lane.num_steps == 0:
                self.bus.defer()
            with self._guarded(lane):
                self._finish(lane, lane.play(chunk.actions[: self.execution_horizon]))

    def _rest_until(self, asked: "Future[list[ActionChunk]]", lane: Lane) -> None:
        """Keeps a real robot still until the policy has answered; at its start it is still without a command."""
        while lane.is_busy and not asked.done() and not self.is_stopping():
            lane.gate.require_clear()
            if lane.num_steps == 0:
                wait([asked], timeout=POLL_S)
            else:
                self._finish(lane, lane.rest())

    def _finish(self, lane: Lane, outcome: Outcome | None) -> None:
        """Notes how an episode ended; does nothing where it goes on (None)."""
        if outcome is None:
            return
        result = self._result(lane, outcome)
        self.bus.end()  # Nobody but a person judges while the robot comes to rest.
        lane.end()
        self.attempts.finish(result)
        self.on_result()

    @contextlib.contextmanager
    def _guarded(self, lane: Lane) -> Iterator[None]:
        """A fault or a silent robot cuts the attempt off and waits for a person, or is raised where there is none."""
        try:
            yield
        except (SafetyError, RobotError) as exc:
            if isinstance(exc, RobotError):
                lane.gate.trip(safety.FaultKind.CONNECTION, str(exc))
            if lane.is_busy:
                self._finish(lane, Outcome.ABORTED)
            if self.recovery is None:
                raise
            self.recovery.wait(exc, lane.env, lane.gate, is_stopping=self.is_stopping, on_tick=self._hear_late)

    def _hear_late(self) -> None:
        """Labels the episode that ended last by what was said about it since."""
        for verdict in self.bus.take_late(keep_newest=bool(self._busy())):
            if self.attempts.relabel(verdict.outcome):
                self.on_result()

    def _await_last_verdict(self) -> None:
        """After the last episode no other begins before which it could be judged."""
        give_up_s = time.monotonic() + self.last_verdict_s
        if self.last_verdict_s and self.attempts.is_last_unlabelled:
            logger.info("Nobody judged the last episode: there are %.0f s for it.", self.last_verdict_s)
        while self.attempts.is_last_unlabelled and time.monotonic() < give_up_s and not self.is_stopping():
            self._hear_late()
            time.sleep(POLL_S)

    def _seed(self, episode: int) -> int:
        if self.recorded_starts is not None:
            return self.recorded_starts[episode].seed
        return self.config.first_seed + episode

    def _note_start(self, lane: Lane) -> None:
        """Remembers how the episode began; says so where it is not how it was recorded."""
        assert lane.observation is not None, "A lane that begins has been reset."
        start = StartState.of(lane.seed, lane.observation)
        self._starts[lane.episode] = start
        if self.recorded_starts is not None:
            difference = self.recorded_starts[lane.episode].difference(start)
            if difference > START_TOLERANCE:
                logger.warning(
                    "Episode %d does not begin as recorded: states differ by %.3g, prompt %r.",
                    lane.episode,
                    difference,
                    start.prompt,
                )

    def _video(self, lane: Lane) -> VideoFile | None:
        if self.config.num_videos is not None and lane.episode >= self.config.num_videos:
            return None
        again = self.attempts.num_aborted((lane.episode, lane.attempt))
        name = (
            f"episode_{lane.episode:03d}"
            + f"_attempt_{lane.attempt}" * (lane.attempt > 1)
            + f"_again_{again}" * (again > 0)
        )
        return VideoFile(self.video_dir / f"{name}.mp4", fps=lane.env.spec.control_hz)

    def _seen_by_policy(self, lane: Lane) -> Observation:
        assert lane.observation is not None, "A busy lane has been reset."
        return replace(lane.observation, prompt=self._told.get(lane.episode, lane.observation.prompt))

    def _known_prompts(self) -> list[str]:
        """Returns all prompts that a start state may have; a real robot does not move to find that out."""
        if self.recorded_starts is not None:
            known = {start.prompt for start in self.recorded_starts}
        elif keeps_time(self.lanes[0].env):
            known = set(self.prompts)
        else:
            env, episodes = self.lanes[0].env, range(self.attempts.num_episodes)
            known = {env.reset(seed=self._seed(episode)).prompt for episode in episodes}
        if len(known) < 2:
            raise ConfigError(
                f"evaluation.wrong_prompt needs two prompts or more, all start states say {sorted(known)}."
            )
        return sorted(known)

    def _result(self, lane: Lane, outcome: Outcome) -> EpisodeResult:
        return EpisodeResult(
            episode=lane.episode,
            seed=lane.seed,
            prompt=lane.prompt,
            told_prompt=self._told.get(lane.episode, lane.prompt),
            outcome=outcome,
            num_steps=lane.num_steps,
            attempt=lane.attempt,
            num_takeovers=lane.num_takeovers,
            num_human_steps=lane.num_human_steps,
            duration_s=time.monotonic() - lane.began_s,
        )


def _another(known: Sequence[str], prompt: str, *, turn: int) -> str:
    others = [other for other in known if other != prompt]
    return others[turn % len(others)]
