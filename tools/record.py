"""Records demonstrations by one command: `python -m tools.record task=so101 --episodes 10`.

Starts a learner that only stores (`algo=data_collection`) and, in this terminal, the actor with the person driving
(`actor.mode=collect`): keys, leader arm or console are those of the task. Ctrl-C ends after the episode under way was
stored. A second call with the same `unique_identifier` records so many more into the same dataset.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from actor.__main__ import record as play
from actor.progress import Progress
from learner.replay.reader import ReplayDataset
from serl_launcher.config.loader import load, run_main
from serl_launcher.run_directory import RunDirectory
from tools.demo.ports import choose_ports
from tools.demo.processes import Process

logger = logging.getLogger(__name__)

SEAL_S = 30.0
"""How long the last episode may take from the robot into the dataset."""


def record(overrides: Sequence[str], *, num_episodes: int) -> tuple[Path, int]:
    """Records so many more episodes; returns the dataset and how many episodes it holds now."""
    config = load(["actor.mode=collect", "algo=data_collection", *overrides])
    request, broadcast, message = choose_ports(config.transport)
    if message:
        logger.info("%s", message)
    directory = RunDirectory.of(config)
    done = Progress.load(directory.spool(config.actor.id).with_name(f"{config.actor.id}.progress.json")).num_finished
    settings = [
        *overrides, "actor.mode=collect", "algo=data_collection", f"actor.num_episodes={done + num_episodes}",
        f"transport.request_port={request}", f"transport.broadcast_port={broadcast}", "ip=localhost",
    ]  # fmt: skip
    learner = Process("learner", [sys.executable, "-m", "learner", *settings], directory.logs / "record-learner.log")
    before = num_stored(directory.replay)
    learner.start()
    try:
        play(load(settings))
        deadline_s = time.monotonic() + SEAL_S
        wanted = before + Progress.load(
            directory.spool(config.actor.id).with_name(f"{config.actor.id}.progress.json")
        ).num_finished - done  # fmt: skip
        while num_stored(directory.replay) < wanted and time.monotonic() < deadline_s:
            time.sleep(0.2)
    finally:
        learner.stop(SEAL_S)
    return directory.replay, num_stored(directory.replay)


def num_stored(dataset: Path) -> int:
    """Returns how many episodes a dataset holds; 0 where there is none yet."""
    return ReplayDataset(dataset).num_episodes


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.record", description=__doc__)
    parser.add_argument("--episodes", type=int, default=1, help="how many more")
    parser.add_argument("overrides", nargs="*", help="of the configuration, e.g. task=dobot_pnp unique_identifier=cups")
    chosen = parser.parse_intermixed_args(sys.argv[1:])
    dataset, num_episodes = record(chosen.overrides, num_episodes=chosen.episodes)
    sys.stdout.write(
        f"{num_episodes} episodes in {dataset}\n"
        f"  look:    python -m tools.inspect_episodes {dataset}\n"
        f"  replay:  python -m tools.replay_episode {dataset} --episode 0 {' '.join(chosen.overrides)}\n"
        f"  learn:   python -m learner algo=sft_pi0 dataset.repo_id=[{dataset}] "
        f"{' '.join(word for word in chosen.overrides if word.startswith('task='))}\n"
    )


if __name__ == "__main__":
    run_main(main)
