"""Pendulum-v1 through sockets: a learner and 1, 2 or 4 actors, with CURVE and the durable replay, as on real robots.

    python experiments/pendulum/distributed.py --seeds 3 --actors 1 2 4 --output outputs/pendulum/distributed.json

Start weights, algorithm and evaluation are those of `tools.train_single` with the same seed. A robot's time does not
wait: together the actors make `--rate` steps per second, and the learner must keep up (`updates_behind` in the result).
The replay takes whole episodes, so one of 200 steps comes in segments of `--segment` (the task goes on over a cut).
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from learner.replay.reader import ReplayDataset
from learner.trainer.checkpoints import Checkpoints, policy_of
from learner.trainer.start import draw_gaussian
from robot_infra.envs.build import build
from serl_launcher.config import RunConfig, load
from serl_launcher.policies.gaussian import load_gaussian, save_gaussian
from serl_launcher.run_directory import RunDirectory
from serl_launcher.status import read_status
from tools import keys
from tools.demo.ports import choose_ports
from tools.train_single.trial import EVALUATION_SEED, SEEDS_PER_RUN, PlayedEpisode, Result, evaluate

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_HZ = 25
"""Of the simulated clock; what counts is `--rate`. Not the real one: then actors would ask ahead of time."""
_SEEDS_PER_ACTOR = 1000
_EPISODE_STEPS = 200


def main() -> None:
    """Runs every number of actors with every seed; writes JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=20.0, help="steps per second of all actors together")
    parser.add_argument("--segment", type=int, default=10, help="steps of an episode that reach the replay together")
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("outputs/pendulum/distributed.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows = json.loads(arguments.output.read_text())["runs"] if arguments.output.exists() else []
    for seed in range(arguments.seeds):
        for num_actors in arguments.actors:
            if any(
                (row["seed"], row["num_actors"], row["segment"]) == (seed, num_actors, arguments.segment)
                for row in rows
            ):
                continue
            with tempfile.TemporaryDirectory() as name:
                rows.append(run(Path(name), seed, num_actors, arguments))
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            content = {"steps": arguments.steps, "rate": arguments.rate, "runs": rows}
            arguments.output.write_text(json.dumps(content, indent=1) + "\n")


def run(directory: Path, seed: int, num_actors: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Returns what one seed came to with so many actors."""
    overrides = prepare(directory, seed, num_actors, arguments)
    config = load(overrides)
    started, root = time.monotonic(), RunDirectory.of(config)
    learner = start("learner", directory, overrides)
    actors = [
        start("actor", directory, [
            *overrides, f"actor.id=pendulum-{number}", f"transport.keys_dir={directory}/keys/robots/pendulum-{number}",
            f"actor.seed_offset={seed * SEEDS_PER_RUN + number * _SEEDS_PER_ACTOR}",
        ])
        for number in range(num_actors)
    ]  # fmt: skip
    behind = []
    try:
        while learner.poll() is None:
            time.sleep(_POLL_S)
            status = read_status(root.status("trainer")) or {}
            if status.get("phase") == "training":
                behind.append(int(status["replay_steps"]) - int(status["updates"]))
    finally:
        for process in (*actors, learner):
            if process.poll() is None:
                process.terminate()
            process.wait(60)
    if learner.returncode:
        raise RuntimeError(f"The learner ended with {learner.returncode}:\n{(directory / 'learner.log').read_text()}")
    result = evaluated(config, root, arguments.evaluations)
    result.seconds = time.monotonic() - started
    logger.info("Seed %d, %d actors: %.1f in %.0f s.", seed, num_actors, np.mean(result.returns), result.seconds)
    behind_by = float(np.median(behind))
    return {"num_actors": num_actors, "segment": arguments.segment, "updates_behind": behind_by, **asdict(result)}


def prepare(directory: Path, seed: int, num_actors: int, arguments: argparse.Namespace) -> list[str]:
    """Writes keys and the policy to begin with; returns the configuration of learner and actors."""
    overrides = [
        "algo=sac", "task=pendulum", f"seed={seed}", f"output_dir={directory}", "unique_identifier=run", "resume=auto",
        f"environment.wrappers=[{{name: segments, num_steps: {arguments.segment}}}]",
        f"environment.hz={_HZ}", f"environment.realtime_factor={arguments.rate / num_actors / _HZ}",
        "algo.update_to_data=1", "algo.publish_every=10", f"algo.max_updates={arguments.steps}",
        "training.checkpoint_period=100000", f"checkpoint_path={directory}/start",
        f"transport.keys_dir={directory}/keys",
    ]  # fmt: skip
    keys.init(directory / "keys")
    for number in range(num_actors):
        keys.add(directory / "keys", f"pendulum-{number}")
    config = load(overrides)
    torch.manual_seed(seed)
    save_gaussian(draw_gaussian(config, build(config.environment).spec), directory / "start")
    request, broadcast, _ = choose_ports(config.transport)
    return [*overrides, f"transport.request_port={request}", f"transport.broadcast_port={broadcast}"]


def start(module: str, directory: Path, overrides: list[str]) -> "subprocess.Popen[bytes]":
    """Starts a learner or an actor, with its output in a file."""
    with (directory / f"{module}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", module, *overrides], stdout=log, stderr=subprocess.STDOUT)


def evaluated(config: RunConfig, run: RunDirectory, num_evaluations: int) -> Result:
    """Returns what every 200 recorded steps earned, of however many actors, and what the last policy earns."""
    newest = Checkpoints(run.checkpoints, keep=1).newest()
    assert newest is not None
    result = Result(seed=config.seed)
    rewards = ReplayDataset(run.replay).steps.reward
    for last in range(_EPISODE_STEPS, len(rewards) + 1, _EPISODE_STEPS):
        total = float(rewards[last - _EPISODE_STEPS : last].sum())
        result.training.append(PlayedEpisode(num_steps=last, total=total, success=False))
    policy, env = load_gaussian(policy_of(newest)), build(replace(config.environment, wrappers=[]))
    for number in range(num_evaluations):
        result.returns.append(evaluate(env, policy, EVALUATION_SEED + number)[0])
    return result


if __name__ == "__main__":
    main()
