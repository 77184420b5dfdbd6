import logging
import time
from pathlib import Path

import numpy as np
import pytest

from learner.server.inference import InferenceService
from learner.server.policy_watcher import PolicyWatcher
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.publication import Publisher
from serl_launcher.types import Unfinished
from tests.learner.server.inference_rig import SPEC, Inbox, observe


class StillPolicy:
    """Stands still; counts its calls."""

    def __init__(self, path: Path):
        self.spec = SPEC
        self.content = (path / "weights").read_bytes()
        self.num_calls = 0
        if self.content == b"bad":
            raise CheckpointError("weights do not fit")

    def act(self, images, state, prompts):
        self.num_calls += 1
        return np.zeros((len(prompts), 3, 2), np.float32)


def publish(publisher, version, content=b"good"):
    return publisher.publish(lambda path: (path / "weights").write_bytes(content) and None, version)


@pytest.fixture(name="loaded")
def fixture_loaded():
    return []


@pytest.fixture(name="inference")
def fixture_inference():
    return InferenceService(ServerConfig())


@pytest.fixture(name="watcher")
def fixture_watcher(tmp_path, inference, loaded):
    def load(path):
        loaded.append(StillPolicy(path))
        return loaded[-1]

    return PolicyWatcher(tmp_path, load, inference)


def test_nothing_published_is_no_error(watcher, inference):
    watcher.look()
    assert inference.policy_version == -1


def test_a_new_policy_is_warmed_up_and_taken_over_once(tmp_path, watcher, inference, loaded):
    publish(Publisher(tmp_path), 5)
    watcher.look()
    watcher.look()
    assert inference.policy_version == 5
    assert [policy.num_calls for policy in loaded] == [1]


class Shapes(StillPolicy):
    """Notes batch sizes, prompts and whether chunks were continued."""

    def __init__(self, path):
        super().__init__(path)
        self.calls = []

    def act(self, images, state, prompts):
        self.calls.append((len(prompts), sorted(set(prompts)), False))
        assert images.shape == (len(prompts), 1, 8, 8, 3)
        return super().act(images, state, prompts)

    def act_on(self, lanes):
        actions = self.act(lanes.images, lanes.state, lanes.prompts)
        self.calls[-1] = (*self.calls[-1][:2], any(lanes.unfinished))
        return actions


def test_a_new_policy_is_warmed_up_with_the_calls_that_robots_make(tmp_path, inference):
    loaded = []

    def load(path):
        loaded.append(Shapes(path))
        return loaded[-1]

    watcher, publisher, inbox = PolicyWatcher(tmp_path, load, inference), Publisher(tmp_path), Inbox()
    publish(publisher, 1)
    watcher.look()
    assert loaded[0].calls == [(1, ["warm up"], False), (1, ["warm up"], True)]
    inference.start()
    rest = [Unfinished(actions=np.ones((2, 2), np.float32), delay_ticks=1)]
    for key, (size, unfinished) in enumerate(((1, ()), (3, ()), (4, ()), (1, rest), (1, ()))):
        observations = [observe(0.1)] * size
        inference.submit(key, observations, time.monotonic() + 5, inbox.reply_to(key), unfinished)
        inbox.wait_for(key + 1)
    inference.stop()
    publish(publisher, 2)
    watcher.look()
    # A batch of 3 is padded to 4, which is a call of the same shapes.
    assert sorted(loaded[1].calls[2:]) == [(1, ["go"], False), (1, ["go"], True), (4, ["go"], False)]


def answer(inference, **requests):
    """Has requests of so many observations answered, one after the other."""
    inbox = Inbox()
    inference.start()
    for key, xs in requests.items():
        inference.submit(key, [observe(x) for x in xs], time.monotonic() + 5, inbox.reply_to(key))
        inbox.wait_for(len(inbox.answers) + 1)
    inference.stop()
    return inbox.answers


def test_a_policy_for_whose_batches_there_is_no_room_beside_the_old_one_is_taken_over(tmp_path, inference):
    class Large(Shapes):
        def act(self, images, state, prompts):
            if len(prompts) > 1 and self.content == b"large":
                raise MemoryError("no room")
            return super().act(images, state, prompts)

    watcher, publisher = PolicyWatcher(tmp_path, Large, inference), Publisher(tmp_path)
    publish(publisher, 1)
    watcher.look()
    answer(inference, four=[0.1] * 4)
    publish(publisher, 2, b"large")
    watcher.look()
    assert inference.policy_version == 2


def test_a_call_without_finite_actions_is_not_asked_of_the_next_policy(tmp_path, inference):
    class Echo(Shapes):
        def act(self, images, state, prompts):
            super().act(images, state, prompts)
            return np.repeat(np.where(state < 0, np.nan, state)[:, None], 3, axis=1)

    watcher, publisher = PolicyWatcher(tmp_path, Echo, inference), Publisher(tmp_path)
    publish(publisher, 1)
    watcher.look()
    assert answer(inference, bad=[-1.0])["bad"][0].kind == "PolicyError"
    publish(publisher, 2)
    watcher.look()
    assert inference.policy_version == 2


def test_a_policy_that_cannot_continue_a_chunk_is_not_taken_over(tmp_path, inference):
    class Stuck(Shapes):
        def act_on(self, lanes):
            return np.full((1, 3, 2), np.nan)

    publish(Publisher(tmp_path), 1)
    PolicyWatcher(tmp_path, Stuck, inference).look()
    assert inference.policy_version == -1


def test_only_the_newest_is_loaded(tmp_path, watcher, inference, loaded):
    publisher = Publisher(tmp_path)
    for version in (1, 2, 3):
        publish(publisher, version)
    watcher.look()
    assert inference.policy_version == 3
    assert len(loaded) == 1


def test_a_bad_policy_leaves_the_one_before_in_force(tmp_path, watcher, inference, caplog):
    publisher = Publisher(tmp_path)
    publish(publisher, 1)
    watcher.look()
    publish(publisher, 2, b"bad")
    watcher.look()
    watcher.look()
    assert inference.policy_version == 1
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1


def test_a_policy_whose_checksum_is_wrong_is_not_loaded(tmp_path, watcher, inference, loaded):
    path = publish(Publisher(tmp_path), 1).path
    (path / "weights").write_bytes(b"evil")
    watcher.look()
    assert inference.policy_version == -1
    assert not loaded
