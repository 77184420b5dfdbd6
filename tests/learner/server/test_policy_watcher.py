import logging
from pathlib import Path

import numpy as np
import pytest

from learner.server.inference import InferenceService
from learner.server.policy_watcher import PolicyWatcher
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.publication import Publisher
from tests.learner.server.test_inference import SPEC


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
