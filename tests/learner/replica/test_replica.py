"""A replay is copied to another machine while it grows, is relabelled, and both ends are killed."""

import numpy as np
import pytest

from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.learner.replica.processes import Replica
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=16)


def assert_same(one, other):
    one.refresh()
    other.refresh()
    count = one.num_episodes
    assert [one.episode_id(number) for number in range(count)] == [
        other.episode_id(number) for number in range(other.num_episodes)
    ]
    assert one.episodes.outcome.tolist() == other.episodes.outcome.tolist()
    for name in ("state", "action", "reward", "source", "policy_version", "episode"):
        assert np.array_equal(getattr(one.steps, name), getattr(other.steps, name)), name
    for step in range(one.num_steps):
        assert one.encoded_image(step, "cam_0") == other.encoded_image(step, "cam_0")
    for number in range(count):
        assert np.array_equal(one.final_state(number), other.final_state(number))
        assert np.array_equal(one.final_image(number, "cam_1"), other.final_image(number, "cam_1"))


@pytest.mark.timeout(300)
def test_the_copy_is_the_same_whatever_is_killed(tmp_path):
    replica = Replica(here=tmp_path / "here", there=tmp_path / "there")
    root = replica.here / "test" / "replay_buffer"
    writer = DatasetWriter(root, SPEC)
    number = 0

    def record(count):
        nonlocal number
        for _ in range(count):
            outcome = Outcome.SUCCESS if number % 2 else Outcome.UNLABELLED
            writer.append(make_episode(SPEC, number, 3 + number % 5, outcome=outcome))
            number += 1

    try:
        replica.start("replica")
        record(4)
        replica.start("server")
        replica.wait_for(lambda copied: copied.num_episodes == 4)
        replica.kill("server")
        record(3)
        writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.FAILURE, "human", 9.0))
        replica.kill("replica")
        record(40)
        replica.start("server")
        replica.start("replica")
        replica.wait_for(lambda copied: copied.num_episodes > 7)
        replica.kill("replica")
        replica.kill("server")
        replica.start("replica")
        replica.start("server")
        record(1)
        writer.relabel("a-1-2", EpisodeLabelled("a-1-2", Outcome.SUCCESS, "human", 9.0))
        replica.wait_for(
            lambda copied: copied.num_episodes == number and copied.label_of(2) == (Outcome.SUCCESS, "human")
        )
        assert_same(ReplayDataset(root), ReplayDataset(replica.there / "test" / "replay_buffer"))
    finally:
        replica.stop()
