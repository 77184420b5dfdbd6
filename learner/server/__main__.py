"""`python -m learner.server key=value ...`: the learner server; normally started by `python -m learner`."""

import sys

from learner.lifetime import EXIT_STOPPED, RunLock, answer_quickly, log_to_file, stop_on_signals
from learner.runs import check_resume
from learner.server.assembly import LearnerServer
from serl_launcher.config import load, run_main
from serl_launcher.journal import Journal
from serl_launcher.run_directory import RunDirectory


def main() -> int:
    """Serves until the run is over (0) or a signal asks to stop (EXIT_STOPPED)."""
    stop = stop_on_signals()
    answer_quickly()
    config = load(sys.argv[1:])
    run = RunDirectory.of(config)
    check_resume(config, [run.journal])
    log_to_file(run.logs / "server.log")
    with RunLock(run.root / "server.lock"):
        journal = Journal(run.journal, durability=config.transport.durability)
        try:
            is_over = LearnerServer(config, run, journal).run(stop)
        finally:
            journal.close()
    return 0 if is_over else EXIT_STOPPED


if __name__ == "__main__":
    run_main(main)
