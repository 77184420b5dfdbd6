"""What the feed hands out while the replay grows, in one process and in ranks."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from learner.replay.chunks import ChunkSampler
from learner.replay.mixture import Mixture, MixtureSource
from learner.replay.reader import ReplayDataset
from learner.replay.views import View, all_steps
from learner.trainer.feed import NUM_AHEAD, DataFeed
from learner.trainer.ranks import Ranks
from serl_launcher.datasets.writer import DatasetWriter
from tests.learner.trainer.feed_in_ranks import NEW_EPISODES, NUM_UPDATES, SPEC, Learner
from tests.recorded_episodes import make_episode


def test_a_sealed_episode_is_in_what_is_drawn_next(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    writer.append(make_episode(SPEC, 0, 2))
    replay = ReplayDataset(tmp_path)
    sampler = ChunkSampler(replay, horizon=1, cameras=("cam_0",))
    mixture = Mixture(
        [MixtureSource(name="online", view=View(replay, all_steps), fraction=1.0, sampler=sampler)], 64, 0
    )
    feed = DataFeed(mixture, replay, Learner(), ranks=Ranks(torch.device("cpu")))
    feed.start()
    for number in range(1, 5):
        writer.append(make_episode(SPEC, number, 2))
        for _ in range(NUM_AHEAD + 1):  # Drawn before it was sealed.
            feed.next()
        assert number in feed.next().state[:, 0]
    time.sleep(0.3)  # The thread waits for an update, with all batches drawn.
    assert feed.counts.num_episodes == 5
    feed.stop()


@pytest.mark.timeout(300)
def test_ranks_share_the_batch_that_rank_0_drew_while_the_data_changes(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "replay", SPEC)
    for number in range(2):
        writer.append(make_episode(SPEC, number, 6))
    writer.close()
    command = [sys.executable, "-m", "tests.learner.trainer.feed_in_ranks"]
    for process in [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in (0, 1)]:
        assert process.wait(280) == 0
    said = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    drawn = said[0]["drawn"][:NUM_UPDATES]
    for rank in (0, 1):
        held = [[list(divmod(step, 6)) for step in steps[rank::2]] for steps in drawn]
        assert said[rank]["held"] == held
    assert not said[1]["drawn"]
    episodes = [{step // 6 for step in steps} for steps in drawn]
    for update, number in NEW_EPISODES.items():
        assert not any(number in found for found in episodes[:update])
        assert any(number in found for found in episodes[update:])
    assert 0 not in set.union(*episodes[-6:])
