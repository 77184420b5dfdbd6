"""`python -m learner key=value ...`: the learner of one run. One Ctrl-C ends it in good order."""

import logging
import os
import sys

from learner.lifetime import SUPERVISOR_VARIABLE, RunLock, log_to_file, stop_on_signals
from learner.runs import check_resume
from learner.supervisor import ChildSpec, Supervisor
from serl_launcher.config import RunConfig, load, run_main
from serl_launcher.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def main() -> int:
    """Checks the configuration once, then supervises; returns the exit status."""
    stop = stop_on_signals()
    config = load(sys.argv[1:])
    run = RunDirectory.of(config)
    is_continued = check_resume(config, [run.journal, run.checkpoints, run.replay])
    log_to_file(run.logs / "learner.log")
    with RunLock(run.root / "learner.lock"):
        # The status of an earlier start must not end this one.
        run.status("trainer").unlink(missing_ok=True)
        logger.info("%s %s in %s.", "Continuing" if is_continued else "Starting", config.algo.name, run.root)
        return Supervisor(child_specs(config, sys.argv[1:])).run(stop)


def child_specs(config: RunConfig, overrides: list[str]) -> list[ChildSpec]:
    """Returns the processes of this run. `resume` was decided here, so the children just continue."""
    arguments = [*overrides, "resume=auto"]
    if config.algo.name == "reward_classifier":
        return [_trainer([sys.executable, "-m", "learner.train_reward", *arguments], config)]
    collects_only = config.algo.name == "data_collection"
    server = ChildSpec(
        name="server",
        command=[sys.executable, "-m", "learner.server", *arguments],
        environment=_environment(config.server.num_threads),
        is_goal=collects_only,
    )
    if collects_only:
        return [server]
    return [server, _trainer([*_launcher(config), "learner.trainer", *arguments], config)]


def _trainer(command: list[str], config: RunConfig) -> ChildSpec:
    return ChildSpec(
        name="trainer", command=command, environment=_environment(config.training.num_threads), is_goal=True
    )


def _launcher(config: RunConfig) -> list[str]:
    """Returns how a module of the trainer is started; DeepSpeed wants its variables also for a single rank."""
    num_ranks = config.training.num_ranks
    if num_ranks == 1 and config.training.deepspeed_config is None:
        return [sys.executable, "-m"]
    return [sys.executable, "-m", "learner.launcher", str(num_ranks)]


def _environment(num_threads: int) -> dict[str, str]:
    # Read when the numeric libraries are loaded, before any of our code runs.
    return {SUPERVISOR_VARIABLE: str(os.getpid()), "OMP_NUM_THREADS": str(num_threads)}


if __name__ == "__main__":
    run_main(main)
