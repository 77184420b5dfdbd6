"""One of two ranks that learn from a growing replay: `python -m ... RANK DIRECTORY`; writes what its batches held."""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from learner.algorithms.interfaces import Sampling
from learner.algorithms.window import WholeWindow
from learner.replay.chunks import ChunkSampler
from learner.replay.mixture import Mixture, MixtureSource
from learner.replay.reader import ReplayDataset
from learner.replay.views import View
from learner.trainer.feed import DataFeed
from learner.trainer.ranks import Ranks
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=8, cameras=1)
NUM_UPDATES = 24
NEW_EPISODES = {4: 2, 8: 3, 16: 4}
"""Update before which an episode is sealed, and its number."""
CORRECTED_AT = 12


class Learner(WholeWindow):
    """The part of an algorithm that says what it learns from: no failures."""

    sampling = Sampling(horizon=1)

    def __init__(self) -> None:
        self._dataset = DatasetConfig()

    def online_weights(self, replay):
        weights = super().online_weights(replay)
        return weights * (replay.episodes.outcome != Outcome.FAILURE)[replay.steps.episode]


def main(rank: int, directory: Path) -> None:
    """Takes NUM_UPDATES batches; rank 0 seals episodes and corrects a label meanwhile, and says what it drew."""
    dist.init_process_group("gloo", init_method=f"file://{directory / 'meet'}", rank=rank, world_size=2)
    replay, learner = ReplayDataset(directory / "replay"), Learner()
    source = MixtureSource(
        name="online", view=View(replay, learner.online_weights), fraction=1.0,
        sampler=ChunkSampler(replay, horizon=1, cameras=("cam_0",)),
    )  # fmt: skip
    mixture = Mixture([source], 8, 0, part=(rank, 2))
    drawn: list[list[int]] = []
    draw = mixture.draw

    def noted():
        steps = draw()
        drawn.append(steps[0].tolist())
        return steps

    mixture.draw = noted
    feed = DataFeed(mixture, replay, learner, ranks=Ranks(torch.device("cpu")))
    feed.start()
    writer = DatasetWriter(directory / "replay", SPEC) if rank == 0 else None
    held = []
    for update in range(NUM_UPDATES):
        if writer is not None and update in NEW_EPISODES:
            writer.append(make_episode(SPEC, NEW_EPISODES[update], 6))
        if writer is not None and update == CORRECTED_AT:
            writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.FAILURE, "human", 9.0))
        held.append(feed.next().state[:, :2].astype(int).tolist())
        time.sleep(0.01 * (rank + 1))
    feed.stop()
    (directory / f"rank-{rank}.json").write_text(json.dumps({"held": held, "drawn": drawn}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
