"""`python -m tools.train_single --seeds 5 --steps 20000 task=pendulum algo=sac key=value ...`.

Writes a JSON file with every evaluation's return per seed, and prints mean and standard deviation over the seeds.
"""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from learner.replay.transitions import TransitionMemory
from robot_infra.envs.build import build
from robot_infra.interfaces import RobotEnv
from serl_launcher.config import RunConfig, load, run_main
from serl_launcher.files import write_atomic
from tools.train_single.demonstrations import play_demonstrations, read_demonstrations
from tools.train_single.experts import expert_of
from tools.train_single.takeovers import Takeovers
from tools.train_single.trial import PlayedEpisode, Result, Trial

logger = logging.getLogger(__name__)

_STORY_STEPS, _STORY_WIDTH = 2000, 100


def main() -> int:
    """Runs the seeds one after another."""
    parser = argparse.ArgumentParser(prog="tools.train_single", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from config seed on")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the task per seed")
    parser.add_argument("--evaluations", type=int, default=50, help="episodes of the evaluation per seed")
    parser.add_argument("--demonstrations", type=Path, help="dataset whose steps are half of every batch (RLPD)")
    parser.add_argument("--expert-episodes", type=int, default=0, help="demonstrations to play by the task's expert")
    parser.add_argument("--takeovers", type=float, default=0.0, help="chance that the expert takes over, at first")
    parser.add_argument("--takeovers-until", type=float, default=0.5, help="share of the steps when that chance is 0")
    parser.add_argument("--output", type=Path, default=Path("outputs/single.json"))
    arguments, overrides = parser.parse_known_args()
    config = load(overrides)
    env = build(config.environment)
    results, first_seed = [], config.seed
    for number in range(arguments.seeds):
        config.seed = first_seed + number
        np.random.seed(config.seed)
        trial = _trial(config, env, arguments)
        results.append(trial.run(arguments.steps, num_evaluations=arguments.evaluations, report=_report))
        logger.info("Seed %d: %s in %.0f s.", config.seed, _describe(results[-1:]), results[-1].seconds)
        _write(arguments.output, overrides, arguments.steps, results)
    logger.info("%d seeds: %s.", len(results), _describe(results))
    return 0


def _trial(config: RunConfig, env: RobotEnv, arguments: argparse.Namespace) -> Trial:
    takeovers = None
    if arguments.takeovers > 0:
        expert = expert_of(config.environment, *env.spec.action_bounds())
        takeovers = Takeovers(
            expert, probability=arguments.takeovers, fades_until=arguments.takeovers_until, seed=config.seed
        )
    return Trial(config, env, demonstrations=_demonstrations(config, env, arguments), takeovers=takeovers)


def _demonstrations(config: RunConfig, env: RobotEnv, arguments: argparse.Namespace) -> TransitionMemory | None:
    if arguments.expert_episodes:
        expert = expert_of(config.environment, *env.spec.action_bounds())
        return play_demonstrations(config, env, expert, arguments.expert_episodes)
    if arguments.demonstrations is not None:
        return read_demonstrations(arguments.demonstrations, env.spec, discount=config.algo.sac.discount)
    return None


def _report(episode: PlayedEpisode) -> None:
    logger.debug("Step %d: %s.", episode.num_steps, episode)
    if episode.num_steps % _STORY_STEPS < _STORY_WIDTH:
        logger.info("Step %d: last episode %.1f%s.", episode.num_steps, episode.total, " solved" * episode.success)


def _describe(results: list[Result]) -> str:
    means = np.array([np.mean(result.returns) for result in results])
    successes = np.mean([success for result in results for success in result.successes])
    return f"return {means.mean():.1f} +- {means.std():.1f}, success {100 * successes:.0f} %"


def _write(path: Path, overrides: list[str], num_steps: int, results: list[Result]) -> None:
    means = [float(np.mean(result.returns)) for result in results]
    content = {
        "overrides": overrides, "steps": num_steps, "mean": float(np.mean(means)), "std": float(np.std(means)),
        "results": [asdict(result) for result in results],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    run_main(main)
