"""Latency on a clock of ticks: answers come some ticks after their question, exactly, however slow this machine is.

Repeats itself exactly, and many robots share each policy call. Start states and latencies are equal for every way of
joining chunks.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from actor.latency import LatencyEstimate
from actor.local_policy import LocalPolicy
from actor.realtime_plan import Answer, RealTimePlan
from robot_infra import envs
from robot_infra.interfaces import RobotEnv
from serl_launcher.config import RunConfig
from serl_launcher.types import ActionChunk, Observation, Unfinished
from tools.bench_latency.arms import Arm
from tools.bench_latency.robot import Robot
from tools.bench_latency.seams import Cell, Episode


@dataclass(kw_only=True, slots=True)
class Question:
    """What one robot asked, until its answer is computed."""

    tick: int
    observation: Observation
    unfinished: Unfinished | None


@dataclass(kw_only=True, slots=True)
class LatePolicy:
    """The policy as one robot meets it; `actor.realtime_plan.AsyncPolicy` on a clock of ticks."""

    policy: LocalPolicy
    rng: np.random.Generator
    range_ms: tuple[float, float]
    tick_s: float
    now: int = 0
    question: Question | None = None
    """Asked at this tick."""
    _coming: list[tuple[int, Answer]] = field(default_factory=list)

    def chunk_for(self, observation: Observation, *, patience_s: float = math.inf) -> ActionChunk | None:
        """Returns the first chunk; the robot stands meanwhile, so how long it takes does not count."""
        del patience_s
        self.now = 0
        [chunk] = self.policy.act([observation])
        chunk.timings_ms["round_trip"] = self._draw_ms()
        return chunk

    def ask(
        self, observation: Observation, *, tick: int, unfinished: Unfinished | None, timeout_s: float = math.inf
    ) -> bool:
        """Notes the question of this tick."""
        del timeout_s  # Answers are late here, never lost.
        self.question = Question(tick=tick, observation=observation, unfinished=unfinished)
        return True

    def answer(self, chunk: ActionChunk) -> None:
        """Has the question of this tick answered after a random latency."""
        assert self.question is not None
        latency_ms = self._draw_ms()
        chunk.timings_ms["round_trip"] = latency_ms
        due = self.question.tick + math.ceil(1e-3 * latency_ms / self.tick_s)
        self._coming.append((due, Answer(tick=self.question.tick, chunk=chunk)))
        self.question = None

    def answers(self) -> list[Answer]:
        """Returns what has arrived at the tick that begins now."""
        arrived = [answer for due, answer in self._coming if due <= self.now]
        self._coming = [(due, answer) for due, answer in self._coming if due > self.now]
        self.now += 1
        return sorted(arrived, key=lambda answer: answer.tick)

    @property
    def num_under_way(self) -> int:
        """Questions without an answer yet."""
        return len(self._coming) + (self.question is not None)

    def forget(self) -> None:
        """Drops what is under way."""
        self._coming.clear()
        self.question = None

    def _draw_ms(self) -> float:
        return float(self.rng.uniform(*self.range_ms))


class VirtualBench:
    """Simulators and a policy, used for one cell after the other."""

    def __init__(self, config: RunConfig, policies: Mapping[str, LocalPolicy], *, hz: float, num_lanes: int) -> None:
        """Builds `num_lanes` simulators whose ticks are 1/hz seconds of latency long; policies are named by arm."""
        self._config, self._policies, self._tick_s = config, policies, 1 / hz
        self._envs: Sequence[RobotEnv] = [envs.build(config.environment) for _ in range(num_lanes)]

    def run(self, arm: Arm, range_ms: tuple[float, float], seeds: Sequence[int]) -> Cell:
        """Plays every seed once."""
        waiting, done = deque(seeds), list[Episode]()
        robots = [self._robot(env, arm, range_ms) for env in self._envs[: len(seeds)]]
        busy: list[tuple[Robot, LatePolicy]] = []
        idle = robots
        while idle or busy:
            for robot, policy in idle[: len(waiting)]:
                seed = waiting.popleft()
                policy.rng = np.random.default_rng(seed)
                robot.begin(seed)
                busy.append((robot, policy))
            ended = [(robot, robot.tick()) for robot, _ in busy]
            done += [episode for _, episode in ended if episode is not None]
            self._answer(self._policies[arm.name], [policy for _, policy in busy])
            over = {id(robot) for robot, episode in ended if episode is not None}
            idle = [pair for pair in busy if id(pair[0]) in over] if waiting else []
            busy = [pair for pair in busy if id(pair[0]) not in over]
        return Cell(arm=arm.name, low_ms=range_ms[0], high_ms=range_ms[1], episodes=done)

    def _robot(self, env: RobotEnv, arm: Arm, range_ms: tuple[float, float]) -> tuple[Robot, LatePolicy]:
        policy = LatePolicy(
            policy=self._policies[arm.name], rng=np.random.default_rng(0), range_ms=range_ms, tick_s=self._tick_s
        )
        actor = self._config.actor
        plan = RealTimePlan(
            policy=policy, execution_horizon=actor.execution_horizon, latency=LatencyEstimate(self._tick_s),
            chunking=arm.chunking, max_under_way=actor.max_requests, ensemble_decay=actor.ensemble_decay,
        )  # fmt: skip
        return Robot(env=env, plan=plan, tick_s=self._tick_s), policy

    def _answer(self, policy: LocalPolicy, robots: Sequence[LatePolicy]) -> None:
        """Answers all questions of one tick by one policy call."""
        asking = [robot for robot in robots if robot.question is not None]
        questions = [robot.question for robot in asking if robot.question is not None]
        if not questions:
            return
        chunks = policy.act([each.observation for each in questions], [each.unfinished for each in questions])
        for robot, chunk in zip(asking, chunks, strict=True):
            robot.answer(chunk)
