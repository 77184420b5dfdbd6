"""Writes two episodes and a late label and kills itself at a stage: `seal_and_die.py DIR STAGE`."""

import os
import signal
import sys
from pathlib import Path

from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot


def main(root: Path, stage: str) -> None:
    spec = robot()
    DatasetWriter(root, spec).append(make_episode(spec, 0, 5, outcome=Outcome.FAILURE))

    def reached(name: str) -> None:
        if name == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    writer = DatasetWriter(root, spec, reached=reached)
    if stage.startswith("relabel"):
        writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.SUCCESS, "human", 5.0))
    writer.append(make_episode(spec, 1, 4, prompt="another"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
