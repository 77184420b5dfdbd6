"""`python -m tools.bench_train [--updates 100] [--output FILE] key=value ...`: updates per second, and where time goes.

Our trainer's parts and LeRobot's loop take turns, some updates each, so that both see the same machine.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np

from serl_launcher.config import run_main
from tools.bench_results import Result, table_of, write_results
from tools.bench_train.lerobot_loop import LeRobotLoop
from tools.bench_train.ours import PARTS, Bench, config_of, record

ALGORITHMS = ("reject_sampling_pi0", "sac_pi0")
_WARM_UP = 5
_TURN = 10


def main() -> int:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(prog="tools.bench_train", description=__doc__)
    parser.add_argument("--updates", type=int, default=100, help="timed updates of each")
    parser.add_argument("--size", type=int, default=64, help="pixels of the square cameras")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="LeRobot's loader processes")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench_train.json"))
    arguments, overrides = parser.parse_known_args()
    logging.getLogger("learner").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        record(directory / "demonstrations", size=arguments.size)
        results = _measure(directory, overrides, arguments.updates, arguments.workers)
    sys.stdout.write(table_of(results) + "\n")
    write_results(arguments.output, results, updates=arguments.updates, size=arguments.size, overrides=overrides)
    return 0


def _measure(directory: Path, overrides: list[str], num_updates: int, workers: list[int]) -> list[Result]:
    benches = {name: Bench(config_of(name, directory, overrides)) for name in ALGORITHMS}
    config = config_of(ALGORITHMS[0], directory, ["algo.optimizer.name=adamw", *overrides])
    loops = {
        f"lerobot/{count} workers": LeRobotLoop(config, directory / "demonstrations", num_workers=count)
        for count in workers
    }
    runners: dict[str, Bench | LeRobotLoop] = {**benches, **loops}
    for runner in runners.values():
        runner.run(_WARM_UP)
    for bench in benches.values():
        bench.watch.clear()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    while len(seconds[ALGORITHMS[0]]) < num_updates:
        for name, runner in runners.items():
            seconds[name].extend(runner.run(_TURN))
    for bench in benches.values():
        bench.close()
    return [
        *(result for name, bench in benches.items() for result in _breakdown(name, bench, np.array(seconds[name]))),
        *(Result(f"{name}/rate", 1 / float(np.median(seconds[name])), "updates/s") for name in loops),
    ]


def _breakdown(name: str, bench: Bench, seconds: np.ndarray) -> list[Result]:
    total = sum(bench.watch.seconds.values())
    shares = {part: bench.watch.seconds[part] / total for part in PARTS}
    overhead = shares["sampling"] + shares["host_to_device"] + shares["other"]
    return [
        Result(f"{name}/rate", 1 / float(np.median(seconds)), "updates/s"),
        *(Result(f"{name}/{part}", 100 * share, "%") for part, share in shares.items()),
        Result(f"{name}/not forward, backward or optimizer", 100 * overhead, "%", at_most=10.0),
    ]


if __name__ == "__main__":
    run_main(main)
