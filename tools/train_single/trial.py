"""One seed of one task: act, remember, learn, evaluate."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator

from learner.algorithms.build import build_algorithm
from learner.algorithms.interfaces import Algorithm
from learner.replay.batch import Batch, concatenate
from learner.replay.transitions import TransitionMemory
from learner.trainer.start import draw_gaussian
from serl_launcher.config import RunConfig
from serl_launcher.policies.gaussian import GaussianPolicy
from serl_launcher.types import Observation
from tools.train_single.task import StateTask

EVALUATION_SEED = 1_000_000
"""Start states of evaluations; training never sees them."""


@dataclass(kw_only=True, slots=True)
class Result:
    """What one seed came to."""

    seed: int
    returns: list[float] = field(default_factory=list)
    """Of the evaluation's episodes, with the most likely actions."""
    successes: list[bool] = field(default_factory=list)
    training_returns: list[tuple[int, float]] = field(default_factory=list)
    """Steps so far and return of every training episode."""
    seconds: float = 0.0


class Trial:
    """Learns from scratch, or from demonstrations as well."""

    def __init__(self, config: RunConfig, task: StateTask, *, demonstrations: TransitionMemory | None = None) -> None:
        """Draws a policy for the task from `config.seed`."""
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.training.num_threads)
        self._config = config
        self._task = task
        self.policy: GaussianPolicy = draw_gaussian(config, task.spec)
        self.algorithm: Algorithm = build_algorithm(config, self.policy, Accelerator(cpu=True), seed=config.seed)
        discount = config.algo.sac.discount
        self._memory = TransitionMemory(task.spec, capacity=config.dataset.capacity, discount=discount)
        self._demonstrations = demonstrations
        self._rng = np.random.default_rng(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)

    def run(self, num_steps: int, *, num_evaluations: int, report: Callable[[int, float], None]) -> Result:
        """Learns for `num_steps` steps of the task, then evaluates; `report` is told every finished episode."""
        result, started = Result(seed=self._config.seed), time.monotonic()
        observation, total = self._task.reset(self._config.seed), 0.0
        for step in range(num_steps):
            action = self._explore(observation)
            following, reward, terminated, truncated, _ = self._task.step(action)
            self._memory.add(observation, action, reward, following, terminated=terminated)
            observation, total = following, total + reward
            if terminated or truncated:
                result.training_returns.append((step + 1, total))
                report(step + 1, total)
                observation, total = self._task.reset(), 0.0
            if step + 1 > self._config.algo.training_starts:
                self.algorithm.update(self._sample())
        result.seconds = time.monotonic() - started
        for number in range(num_evaluations):
            earned, success = self.evaluate(EVALUATION_SEED + number)
            result.returns.append(earned)
            result.successes.append(success)
        return result

    def evaluate(self, seed: int) -> tuple[float, bool]:
        """Returns the return of one episode with the most likely actions, and whether it succeeded."""
        observation, total, is_over, success = self._task.reset(seed), 0.0, False, False
        while not is_over:
            observation, reward, terminated, truncated, now = self._task.step(self._act(observation, is_greedy=True))
            total, is_over, success = total + reward, terminated or truncated, success or now
        return total, success

    def _explore(self, observation: Observation) -> np.ndarray:
        if len(self._memory) < self._config.algo.training_starts and self._demonstrations is None:
            low, high = self._task.spec.action_bounds()
            return self._rng.uniform(low, high).astype(np.float32)
        return self._act(observation, is_greedy=False)

    def _act(self, observation: Observation, *, is_greedy: bool) -> np.ndarray:
        images = np.zeros((1, 0, 1, 1, 3), np.uint8)
        chunk = self.policy.act(images, observation.state[None], [""], generator=self._generator, is_greedy=is_greedy)
        return chunk[0, 0]

    def _sample(self) -> Batch:
        size = self._config.algo.batch_size
        if self._demonstrations is None:
            return self._memory.sample(self._rng, size)
        num_offline = round(size * self._config.dataset.offline_fraction)
        return concatenate([
            self._demonstrations.sample(self._rng, num_offline), self._memory.sample(self._rng, size - num_offline)
        ])  # fmt: skip
