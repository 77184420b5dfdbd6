"""`python -m learner.trainer key=value ...`: one rank of the trainer; normally started by `python -m learner`."""

import logging
import os
import sys
import threading
from contextlib import nullcontext

from learner.lifetime import EXIT_DIVERGED, EXIT_STOPPED, RunLock, log_to_file, stop_on_signals
from learner.runs import check_resume
from learner.status_file import StatusFile
from learner.trainer.build import build_trainer
from learner.trainer.guard import Diverged
from serl_launcher.config import RunConfig, load, run_main
from serl_launcher.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def main() -> int:
    """Trains until the run is finished (0), a signal asks to stop (EXIT_STOPPED) or it is hopeless (EXIT_DIVERGED)."""
    stop = stop_on_signals()
    config = load(sys.argv[1:])
    run = RunDirectory.of(config)
    check_resume(config, [run.checkpoints])
    rank = int(os.environ.get("RANK", "0"))  # Set by accelerate's launcher.
    log_to_file(run.logs / ("trainer.log" if rank == 0 else f"trainer-{rank}.log"))
    with RunLock(run.root / "trainer.lock") if rank == 0 else nullcontext():
        try:
            is_finished = train(config, run, stop, rank=rank)
        except Diverged as exc:
            logger.error("%s", exc)
            return EXIT_DIVERGED
    return 0 if is_finished else EXIT_STOPPED


def train(config: RunConfig, run: RunDirectory, stop: threading.Event, *, rank: int) -> bool:
    """Builds the trainer and runs it; returns whether the run is finished."""
    trainer = build_trainer(config)
    status = StatusFile(run.status("trainer"), trainer.status)
    if rank == 0:
        status.start()
    try:
        return trainer.run(stop)
    finally:
        if rank == 0:
            status.stop()


if __name__ == "__main__":
    run_main(main)
