"""The eval actor: a named checkpoint, fixed start states; nobody takes over unless that was asked for.

Start states come from fixed seeds and the noise of the policy from one seeded generator, so that an evaluation of the
same checkpoint on the same machine repeats itself exactly.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from actor.evaluation_lane import Lane
from actor.evaluation_report import EpisodeResult
from actor.progress import Throttle
from actor.start_states import StartState
from actor.video import VideoFile
from robot_infra import safety
from robot_infra.interfaces import Operator, RobotEnv
from serl_launcher.config.actor import EvaluationConfig
from serl_launcher.errors import ConfigError
from serl_launcher.types import ActionChunk, Observation

logger = logging.getLogger(__name__)

START_TOLERANCE = 0.05
"""Start states that differ by more than this from the recorded ones are reported, in units of the state."""


class BatchPolicy(Protocol):
    """A policy that answers several robots at once."""

    def act(self, observations: list[Observation]) -> list[ActionChunk]:
        """Returns one chunk per observation."""
        ...


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """Plays every start state once, several side by side, with one policy call for all lanes."""

    policy: BatchPolicy
    envs: Sequence[RobotEnv]
    config: EvaluationConfig
    execution_horizon: int
    max_change: Sequence[float]
    video_dir: Path
    recorded_starts: Sequence[StartState] | None = None
    """Start states of an earlier evaluation, to be used again."""
    operators: Sequence[Operator | None] = ()
    """Who may take over, one per environment; empty: nobody."""
    _starts: dict[int, StartState] = field(default_factory=dict)
    _told: dict[int, str] = field(default_factory=dict)

    def run(self) -> list[EpisodeResult]:
        """Returns the results in the order of the seeds."""
        num_episodes = self.config.num_episodes
        if self.recorded_starts is not None:
            num_episodes = min(num_episodes, len(self.recorded_starts))
        waiting = deque((episode, 1) for episode in range(num_episodes))
        lanes = [
            Lane(env=env, gate=safety.Gate(safety.limits_of(env.spec, self.max_change)), operator=operator)
            for env, operator in zip(self.envs, self.operators or [None] * len(self.envs), strict=True)
        ]
        if self.config.wrong_prompt:
            self._told = self._wrong_prompts()
        results: list[EpisodeResult] = []
        progress_due = Throttle(15.0)
        try:
            while busy := self._fill(lanes, waiting):
                chunks = self.policy.act([self._seen_by_policy(lane) for lane in busy])
                for lane, chunk in zip(busy, chunks, strict=True):
                    solved = lane.play(chunk.actions[: self.execution_horizon])
                    if solved is not None:
                        results.append(self._result(lane, solved=solved))
                        if not results[-1].success and lane.attempt < self.config.num_attempts:
                            waiting.appendleft((lane.episode, lane.attempt + 1))
                if progress_due.is_due():
                    logger.info("Evaluated %d of %d episodes.", len(results), self.config.num_episodes)
        finally:
            for lane in lanes:
                lane.stop_filming()
        return sorted(results, key=lambda result: (result.episode, result.attempt))

    @property
    def starts(self) -> list[StartState]:
        """How the episodes began, in their order."""
        return [self._starts[episode] for episode in sorted(self._starts)]

    def _fill(self, lanes: Sequence[Lane], waiting: deque[tuple[int, int]]) -> list[Lane]:
        """Gives idle lanes the next start states; returns the lanes that play."""
        for lane in lanes:
            if not lane.is_busy and waiting:
                episode, attempt = waiting.popleft()
                lane.begin(episode, attempt, seed=self._seed(episode), video=self._video(episode, attempt, lane.env))
                self._note_start(lane)
        return [lane for lane in lanes if lane.is_busy]

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

    def _video(self, episode: int, attempt: int, env: RobotEnv) -> VideoFile | None:
        if episode >= self.config.num_videos:
            return None
        name = f"episode_{episode:03d}" + (f"_attempt_{attempt}" if attempt > 1 else "")
        return VideoFile(self.video_dir / f"{name}.mp4", fps=env.spec.control_hz)

    def _seen_by_policy(self, lane: Lane) -> Observation:
        assert lane.observation is not None, "A busy lane has been reset."
        return replace(lane.observation, prompt=self._told.get(lane.episode, lane.observation.prompt))

    def _wrong_prompts(self) -> dict[int, str]:
        """Returns for each episode the prompt of another task; the other tasks take turns."""
        env = self.envs[0]
        own = {episode: env.reset(seed=self._seed(episode)).prompt for episode in range(self.config.num_episodes)}
        known = sorted(set(own.values()))
        if len(known) < 2:
            raise ConfigError(f"evaluation.wrong_prompt needs two prompts or more, all start states say {known}.")
        return {episode: _another(known, prompt, turn=episode) for episode, prompt in own.items()}

    def _result(self, lane: Lane, *, solved: bool) -> EpisodeResult:
        return EpisodeResult(
            episode=lane.episode,
            seed=lane.seed,
            prompt=lane.prompt,
            told_prompt=self._told.get(lane.episode, lane.prompt),
            success=solved and not lane.num_takeovers,
            num_steps=lane.num_steps,
            attempt=lane.attempt,
            solved_with_help=solved and lane.num_takeovers > 0,
            num_takeovers=lane.num_takeovers,
            num_human_steps=lane.num_human_steps,
        )


def _another(known: Sequence[str], prompt: str, *, turn: int) -> str:
    others = [other for other in known if other != prompt]
    return others[turn % len(others)]
