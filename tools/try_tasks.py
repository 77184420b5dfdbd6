"""Drives simulators by real processes: `python -m tools.try_tasks push_t metaworld` (no name: every shipped simulator).

Starts `python -m learner algo=data_collection` and `python -m actor actor.policy=random` for each task, waits until the
learner has sealed its episodes, and reads them back. Says per task how many steps arrived, or why there are none.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from learner.replay.reader import ReplayDataset
from serl_launcher.config.loader import config_dir, run_main
from serl_launcher.errors import HiorsError
from tools.demo.ports import free_port
from tools.demo.processes import Process

SIMULATED = ("sim_pnp", "gymnasium")
"""Environments that are no metal."""
STEPS = 50
POLL_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What came of one task.

    Example:
        Tried(task="push_t", num_steps=50, num_episodes=1, num_cameras=0, seconds=9.1, trouble="")
    """

    task: str
    num_steps: int
    num_episodes: int
    num_cameras: int
    seconds: float
    trouble: str

    @property
    def line(self) -> str:
        """Returns what the person reads."""
        if self.trouble:
            return f"{self.task:<22} NOT DONE: {self.trouble}"
        return (
            f"{self.task:<22} {self.num_steps} steps in {self.num_episodes} episodes, {self.num_cameras} cameras, "
            f"{self.seconds:.0f} s with both starts"
        )


def shipped_simulators() -> list[str]:
    """Returns the tasks in `config/task` that run without a robot."""
    files = sorted((config_dir() / "task").glob("*.yaml"))
    names = {file.stem: OmegaConf.select(OmegaConf.load(file), "environment.name") or "sim_pnp" for file in files}
    return [task for task, name in names.items() if name in SIMULATED]


def attempt(task: str, directory: Path, *, python: str, overrides: Sequence[str], timeout_s: float) -> Tried:
    """Returns what came of one task; both processes are gone afterwards."""
    began_s = time.monotonic()
    settings = [
        f"task={task}", f"output_dir={directory}", f"unique_identifier={task}", "algo=data_collection",
        "algo.stop_after_episodes=1", "actor.num_episodes=1",
        f"environment.max_episode_length={STEPS}", "environment.realtime_factor=0",
        "actor.policy=random", "actor.intervention.enabled=false", "actor.flush_s=120",
        f"transport.request_port={free_port()}", f"transport.broadcast_port={free_port()}", *overrides,
    ]  # fmt: skip
    learner = Process("learner", [sys.executable, "-m", "learner", *settings], directory / f"{task}-learner.log")
    actor = Process("actor", [python, "-m", "actor", *settings], directory / f"{task}-actor.log")
    trouble = ""
    try:
        learner.start()
        actor.start()
        if not _wait(lambda: actor.poll() is not None, timeout_s):
            trouble = f"the actor did not end within {timeout_s:.0f} s. {actor.log_tail()}"
        elif actor.poll() != 0:
            trouble = actor.log_tail().splitlines()[-1]
        elif not _wait(lambda: learner.poll() is not None, timeout_s):
            trouble = f"the learner did not end within {timeout_s:.0f} s. {learner.log_tail()}"
    finally:
        actor.stop(10.0)
        learner.stop(20.0)
    if trouble:
        return Tried(task=task, num_steps=0, num_episodes=0, num_cameras=0, seconds=0.0, trouble=trouble)
    try:
        dataset = ReplayDataset(directory / task / "replay_buffer")
    except HiorsError as exc:
        return Tried(task=task, num_steps=0, num_episodes=0, num_cameras=0, seconds=0.0, trouble=str(exc))
    if not dataset.num_episodes:
        trouble = f"no episode arrived in {directory / task / 'replay_buffer'}."
        return Tried(task=task, num_steps=0, num_episodes=0, num_cameras=0, seconds=0.0, trouble=trouble)
    return Tried(
        task=task, num_steps=int(dataset.episodes.length.sum()), num_episodes=dataset.num_episodes,
        num_cameras=len(dataset.image_shapes), seconds=time.monotonic() - began_s, trouble="",
    )  # fmt: skip


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def main() -> int:
    """Prints a line per task; returns 1 where one did not work."""
    parser = argparse.ArgumentParser(prog="python -m tools.try_tasks", description=__doc__)
    parser.add_argument("tasks", nargs="*", help="tasks, and `key=value` for both processes")
    parser.add_argument("--actor-python", default=sys.executable, help="another environment for the actor")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds per process")
    parser.add_argument("--output", type=Path, help="keeps recordings and logs there; default: nothing is kept")
    chosen = parser.parse_intermixed_args(sys.argv[1:])
    overrides = [word for word in chosen.tasks if "=" in word]
    tasks = [word for word in chosen.tasks if "=" not in word] or shipped_simulators()
    num_failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        directory = (chosen.output or Path(scratch)).absolute()
        for task in tasks:
            tried = attempt(
                task, directory, python=chosen.actor_python, overrides=overrides, timeout_s=chosen.timeout
            )  # fmt: skip
            num_failed += bool(tried.trouble)
            sys.stdout.write(f"{tried.line}\n")
            sys.stdout.flush()
    return int(num_failed > 0)


if __name__ == "__main__":
    run_main(main)
