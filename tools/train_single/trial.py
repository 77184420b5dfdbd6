"""One seed of one task: act, remember, learn, evaluate."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.algorithms.interfaces import Algorithm
from learner.algorithms.settings import check_settings
from learner.replay.batch import Batch, concatenate
from learner.replay.transitions import TransitionMemory
from learner.trainer.start import draw_gaussian
from robot_infra.interfaces import RobotEnv
from serl_launcher.config import RunConfig
from serl_launcher.policies.gaussian import GaussianPolicy
from serl_launcher.types import Observation
from tools.train_single.demonstrations import reward_of
from tools.train_single.takeovers import Takeovers

EVALUATION_SEED = 1_000_000
"""Start states of evaluations; training never sees them."""
SEEDS_PER_RUN = 10_000
"""Start states of training are `seed * SEEDS_PER_RUN + episode`."""


@dataclass(kw_only=True, slots=True)
class PlayedEpisode:
    """One episode of training."""

    num_steps: int
    """Of the run, when it ended."""
    total: float
    """Its return."""
    success: bool
    num_expert_steps: int = 0


@dataclass(kw_only=True, slots=True)
class Result:
    """What one seed came to."""

    seed: int
    returns: list[float] = field(default_factory=list)
    """Of the evaluation's episodes, with the most likely actions."""
    successes: list[bool] = field(default_factory=list)
    training: list[PlayedEpisode] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of this process, which has one thread: what `seconds` would be on an idle machine."""


Report = Callable[[PlayedEpisode], None]


class Trial:
    """Learns from scratch, or from demonstrations as well, and with an expert who takes over."""

    def __init__(
        self, config: RunConfig, env: RobotEnv, *, demonstrations: TransitionMemory | None = None,
        takeovers: Takeovers | None = None,
    ) -> None:  # fmt: skip
        """Draws a policy for the task from `config.seed`; what an expert does is added to the demonstrations."""
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.training.num_threads)
        self._config = config
        self._env = env
        self.policy: GaussianPolicy = draw_gaussian(
            config, env.spec, states=None if demonstrations is None else demonstrations.states
        )
        check_settings(config)
        self.algorithm: Algorithm = build_algorithm(config, self.policy, Accelerator(cpu=True), seed=config.seed)
        discount = config.algo.sac.discount
        self._memory = TransitionMemory(env.spec, capacity=config.dataset.capacity, discount=discount)
        self._demonstrations = demonstrations
        self._takeovers = takeovers
        self._rng = np.random.default_rng(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._num_updates_due = 0.0

    def run(self, num_steps: int, *, num_evaluations: int, report: Report) -> Result:
        """Learns for `num_steps` steps of the task, then evaluates; `report` is told every finished episode."""
        result = Result(seed=self._config.seed)
        started, started_cpu = time.monotonic(), time.process_time()
        while len(self._memory) < num_steps:
            seed = self._config.seed * SEEDS_PER_RUN + len(result.training)
            episode = self._play(seed, num_steps)
            if episode is not None:
                result.training.append(episode)
                report(episode)
        result.seconds, result.cpu_seconds = time.monotonic() - started, time.process_time() - started_cpu
        for number in range(num_evaluations):
            earned, success = self.evaluate(EVALUATION_SEED + number)
            result.returns.append(earned)
            result.successes.append(success)
        return result

    def evaluate(self, seed: int) -> tuple[float, bool]:
        """Returns the return of one episode with the most likely actions, and whether it succeeded."""
        return evaluate(self._env, self.policy, seed)

    def _play(self, seed: int, num_steps: int) -> PlayedEpisode | None:
        """Plays and learns for one episode; returns it, or None where `num_steps` cut it off."""
        observation = self._env.reset(seed=seed)
        episode = PlayedEpisode(num_steps=0, total=0.0, success=False)
        if self._takeovers is not None:
            self._takeovers.begin(len(self._memory) / num_steps)
        is_over = False
        while not is_over and len(self._memory) < num_steps:
            command = None if self._takeovers is None else self._takeovers.command(observation.state)
            transition = self._env.step(self._explore(observation) if command is None else command)
            following, is_over = transition.observation, transition.terminated or transition.truncated
            memories = [self._memory]
            if command is not None and self._demonstrations is not None:
                memories.append(self._demonstrations)
            for memory in memories:
                memory.add(
                    observation, transition.executed_action, reward_of(self._config, transition), following,
                    terminated=transition.terminated,
                )  # fmt: skip
            observation = following
            episode.total += transition.reward
            episode.success |= transition.success
            episode.num_expert_steps += command is not None
            self._learn()
        episode.num_steps = len(self._memory)
        return episode if is_over else None

    def _learn(self) -> None:
        """Makes the updates that are due after one more step: one, or `algo.update_to_data`."""
        if len(self._memory) <= self._config.algo.training_starts:
            return
        self._num_updates_due += self._config.algo.update_to_data or 1.0
        while self._num_updates_due >= 1:
            self._num_updates_due -= 1
            self.algorithm.update(self._sample())

    def _explore(self, observation: Observation) -> np.ndarray:
        if len(self._memory) < self._config.algo.training_starts and self._demonstrations is None:
            low, high = self._env.spec.action_bounds()
            return self._rng.uniform(low, high).astype(np.float32)
        return act(self.policy, observation, generator=self._generator)

    def _sample(self) -> Batch:
        size = self._config.algo.batch_size
        if self._demonstrations is None:
            return self._memory.sample(self._rng, size)
        num_offline = round(size * self._config.dataset.offline_fraction)
        return concatenate([
            self._demonstrations.sample(self._rng, num_offline), self._memory.sample(self._rng, size - num_offline)
        ])  # fmt: skip


def act(policy: GaussianPolicy, observation: Observation, *, generator: torch.Generator | None = None) -> np.ndarray:
    """Returns the policy's drawn command, float32 [A]; without a generator the most likely one."""
    images = np.zeros((1, 0, 1, 1, 3), np.uint8)
    greedy = generator is None
    return policy.act(images, observation.state[None], [""], generator=generator, is_greedy=greedy)[0, 0]


def evaluate(env: RobotEnv, policy: GaussianPolicy, seed: int) -> tuple[float, bool]:
    """Returns the return of one episode with the most likely actions, and whether it succeeded."""
    observation, total, is_over, success = env.reset(seed=seed), 0.0, False, False
    while not is_over:
        transition = env.step(act(policy, observation))
        observation, is_over = transition.observation, transition.terminated or transition.truncated
        total, success = total + transition.reward, success or transition.success
    return total, success
