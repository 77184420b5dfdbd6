"""Demonstrations for learning in one process: from a dataset that an actor or LeRobot recorded, or from an expert."""

import logging
from pathlib import Path

import numpy as np

from learner.replay.reader import ReplayDataset
from learner.replay.transitions import TransitionMemory
from robot_infra.interfaces import RobotEnv, Transition
from serl_launcher.config import RunConfig
from serl_launcher.errors import DatasetError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation
from tools.train_single.experts import Expert

logger = logging.getLogger(__name__)

FIRST_SEED = 2_000_000
"""Start states of demonstrations; neither training nor evaluation sees them."""
_MOST_TRIES = 3
"""Episodes played per demonstration wanted."""


def read_demonstrations(root: Path, spec: RobotSpec, *, discount: float) -> TransitionMemory:
    """Returns every step of a dataset, without its images.

    Raises:
        DatasetError: It is empty, or its states or actions are not as wide as the task's.
    """
    dataset = ReplayDataset(root)
    steps, episodes = dataset.steps, dataset.episodes
    found = (steps.state.shape[1], steps.action.shape[1])
    if not dataset.num_steps or found != (spec.state_dim, spec.action_dim):
        raise DatasetError(
            f"Expected demonstrations with states and actions of widths {spec.state_dim} and {spec.action_dim} in "
            f"{root}, got {dataset.num_steps} steps of {found}."
        )
    memory = TransitionMemory(spec, capacity=dataset.num_steps, discount=discount)
    last_steps = episodes.first_step + episodes.length - 1
    for step in range(dataset.num_steps):
        episode = int(steps.episode[step])
        is_last = step == last_steps[episode]
        following = dataset.final_state(episode) if is_last else steps.state[step + 1]
        memory.add(
            Observation(images={}, state=steps.state[step], prompt=""), steps.action[step], float(steps.reward[step]),
            Observation(images={}, state=following, prompt=""), terminated=bool(steps.is_terminal[step]),
        )  # fmt: skip
    return memory


def play_demonstrations(config: RunConfig, env: RobotEnv, expert: Expert, num_episodes: int) -> TransitionMemory:
    """Returns the steps of so many successful episodes of an expert, in a memory with room for interventions.

    Raises:
        DatasetError: The expert fails too often.
    """
    memory = TransitionMemory(env.spec, capacity=config.dataset.capacity, discount=config.algo.sac.discount)
    num_successes = 0
    for number in range(_MOST_TRIES * num_episodes):
        if num_successes == num_episodes:
            break
        steps = _play(env, expert, FIRST_SEED + number)
        if not steps[-1][2].success:
            continue
        num_successes += 1
        for observation, action, transition in steps:
            memory.add(
                observation, action, reward_of(config, transition), transition.observation,
                terminated=transition.terminated,
            )  # fmt: skip
    if num_successes < num_episodes:
        raise DatasetError(f"Expected {num_episodes} successes of the expert, got {num_successes} in {number + 1}.")
    logger.info("%d demonstrations with %d steps.", num_successes, len(memory))
    return memory


def reward_of(config: RunConfig, transition: Transition) -> float:
    """Returns what a step earns by `algo.sac.reward_from`."""
    return float(transition.success) if config.algo.sac.reward_from == "label" else transition.reward


def _play(env: RobotEnv, expert: Expert, seed: int) -> list[tuple[Observation, np.ndarray, Transition]]:
    observation, steps, is_over = env.reset(seed=seed), [], False
    expert.begin()
    while not is_over:
        transition = env.step(expert.act(observation.state))
        steps.append((observation, transition.executed_action, transition))
        observation, is_over = transition.observation, transition.terminated or transition.truncated
    return steps
