"""The eval actor: a named checkpoint, fixed start states, nobody takes over.

Start states come from fixed seeds and the noise of the policy from one seeded generator, so that an evaluation of the
same checkpoint on the same machine repeats itself exactly.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from actor.evaluation_report import EpisodeResult
from actor.progress import Throttle
from actor.start_states import StartState
from actor.video import VideoFile
from robot_infra import safety
from robot_infra.interfaces import RobotEnv
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
class _Lane:
    """One simulator and the episode that is played on it."""

    env: RobotEnv
    gate: safety.Gate
    episode: int = -1
    attempt: int = 1
    seed: int = 0
    prompt: str = ""
    """What the scene asks for; the policy may be told something else."""
    num_steps: int = 0
    is_busy: bool = False
    observation: Observation | None = None
    video: VideoFile | None = None

    def begin(self, episode: int, attempt: int, *, seed: int, video: VideoFile | None) -> None:
        """Starts an episode from the seed."""
        self.attempt = attempt
        self.episode, self.seed, self.num_steps, self.is_busy, self.video = episode, seed, 0, True, video
        self.observation = self.env.reset(seed=seed)
        self.prompt = self.observation.prompt
        self.gate.begin(safety.standing_still(self.env.spec, self.observation.state))
        self._film()

    def play(self, actions: np.ndarray) -> bool | None:
        """Executes actions [h, A] until the episode is over; returns whether it succeeded, None where it goes on."""
        for action in actions:
            transition = self.env.step(self.gate.admit(action))
            self.gate.note_executed(transition.executed_action)
            self.observation = transition.observation
            self.num_steps += 1
            self._film()
            if transition.terminated or transition.truncated:
                self.is_busy = False
                self.stop_filming()
                return transition.success
        return None

    def stop_filming(self) -> None:
        """Finishes the video, where there is one."""
        if self.video is not None:
            self.video.close()
            self.video = None

    def _film(self) -> None:
        if self.video is not None:
            self.video.add(self.env.render())


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
    _starts: dict[int, StartState] = field(default_factory=dict)
    _told: dict[int, str] = field(default_factory=dict)

    def run(self) -> list[EpisodeResult]:
        """Returns the results in the order of the seeds."""
        num_episodes = self.config.num_episodes
        if self.recorded_starts is not None:
            num_episodes = min(num_episodes, len(self.recorded_starts))
        waiting = deque((episode, 1) for episode in range(num_episodes))
        lanes = [_Lane(env=env, gate=safety.Gate(safety.limits_of(env.spec, self.max_change))) for env in self.envs]
        if self.config.wrong_prompt:
            self._told = self._wrong_prompts()
        results: list[EpisodeResult] = []
        progress_due = Throttle(15.0)
        try:
            while busy := self._fill(lanes, waiting):
                chunks = self.policy.act([self._seen_by_policy(lane) for lane in busy])
                for lane, chunk in zip(busy, chunks, strict=True):
                    success = lane.play(chunk.actions[: self.execution_horizon])
                    if success is not None:
                        results.append(self._result(lane, success=success))
                        if not success and lane.attempt < self.config.num_attempts:
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

    def _fill(self, lanes: Sequence[_Lane], waiting: deque[tuple[int, int]]) -> list[_Lane]:
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

    def _note_start(self, lane: _Lane) -> None:
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

    def _seen_by_policy(self, lane: _Lane) -> Observation:
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

    def _result(self, lane: _Lane, *, success: bool) -> EpisodeResult:
        return EpisodeResult(
            episode=lane.episode,
            seed=lane.seed,
            prompt=lane.prompt,
            told_prompt=self._told.get(lane.episode, lane.prompt),
            success=bool(success),
            num_steps=lane.num_steps,
            attempt=lane.attempt,
        )


def _another(known: Sequence[str], prompt: str, *, turn: int) -> str:
    others = [other for other in known if other != prompt]
    return others[turn % len(others)]
