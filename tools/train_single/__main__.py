"""`python -m tools.train_single --seeds 5 --steps 20000 task=pendulum algo=sac key=value ...`.

Writes a JSON file with every evaluation's return per seed, and prints mean and standard deviation over the seeds.
"""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from serl_launcher.config import load, run_main
from serl_launcher.files import write_atomic
from tools.train_single.demonstrations import read_demonstrations
from tools.train_single.task import StateTask
from tools.train_single.trial import Result, Trial

logger = logging.getLogger(__name__)

_STORY_EPISODES = 10


def main() -> int:
    """Runs the seeds one after another."""
    parser = argparse.ArgumentParser(prog="tools.train_single", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from config seed on")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the task per seed")
    parser.add_argument("--evaluations", type=int, default=50, help="episodes of the evaluation per seed")
    parser.add_argument("--demonstrations", type=Path, help="dataset whose steps are half of every batch (RLPD)")
    parser.add_argument("--output", type=Path, default=Path("outputs/single.json"))
    arguments, overrides = parser.parse_known_args()
    config = load(overrides)
    results, first_seed = [], config.seed
    for number in range(arguments.seeds):
        config.seed = first_seed + number
        task = StateTask(config.environment.name, hz=config.environment.hz)
        discount, root = config.algo.sac.discount, arguments.demonstrations
        shown = None if root is None else read_demonstrations(root, task.spec, discount=discount)
        trial = Trial(config, task, demonstrations=shown)
        results.append(trial.run(arguments.steps, num_evaluations=arguments.evaluations, report=_report))
        logger.info("Seed %d: %s in %.0f s.", config.seed, _describe(results[-1:]), results[-1].seconds)
        _write(arguments.output, overrides, arguments.steps, results)
    logger.info("%d seeds: %s.", len(results), _describe(results))
    return 0


def _report(num_steps: int, total: float) -> None:
    if num_steps % (_STORY_EPISODES * 200) == 0:
        logger.info("Step %d: last episode %.1f.", num_steps, total)


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
