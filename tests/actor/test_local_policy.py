"""Weights that an actor fetches and runs itself: what is bad changes nothing, and is told once."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from actor import local_policy
from actor.local_policy import FollowingPolicy, LocalPolicy
from serl_launcher.errors import DeadlineExceeded, PolicyError
from serl_launcher.types import Observation
from tests.actor.tiny_checkpoint import save_tiny_policy
from tests.actor.tiny_robot import SPEC, TinyRobot


@dataclass
class Announcement:
    policy_version: int


class Learner:
    """Publishes directories of this disk."""

    def __init__(self, published: Path):
        self.published = published
        self.announcement: Announcement | None = None
        self.error: Exception | None = None
        self.num_fetches = 0

    def fetch_policy(self, version: int, destination: Path, *, timeout_s: float) -> Path:
        self.num_fetches += 1
        if self.error is not None:
            raise self.error
        shutil.copytree(self.published / str(version), destination, dirs_exist_ok=True)
        return destination


@pytest.fixture
def observation() -> Observation:
    return TinyRobot().reset(seed=0)


@pytest.fixture
def learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learner:
    monkeypatch.setattr(local_policy, "STOP_POLL_S", 0.01)
    for version in (1, 3):
        save_tiny_policy(tmp_path / "published" / str(version), SPEC)
    learner = Learner(tmp_path / "published")
    learner.announcement = Announcement(1)
    return learner


@pytest.fixture
def policy(learner: Learner, tmp_path: Path) -> FollowingPolicy:
    return FollowingPolicy(learner, SPEC, cache=tmp_path / "cache", seed=0)


def version_after_a_while(policy: FollowingPolicy, observation: Observation, wanted: int | None = None) -> int:
    """Asks until `wanted` answers, or ten times; returns who answered last."""
    version, give_up_s = -1, time.monotonic() + 20
    for number in range(1000):
        [chunk] = policy.act_async([observation], timeout_s=20).result(30)
        version = chunk.policy_version
        if version == wanted or (wanted is None and number >= 10) or time.monotonic() > give_up_s:
            break
        time.sleep(0.05)
    return version


def truncate(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def poison(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    save_file({name: tensor * np.nan for name, tensor in weights.items()}, directory / "model.safetensors")


@pytest.mark.parametrize("spoil", [truncate, poison])
def test_a_publication_that_is_no_use_leaves_the_old_weights_and_is_told_once(
    learner: Learner, policy: FollowingPolicy, observation: Observation, caplog: pytest.LogCaptureFixture, spoil
):
    assert version_after_a_while(policy, observation) == 1
    shutil.copytree(learner.published / "3", learner.published / "2")
    spoil(learner.published / "2")
    with caplog.at_level(logging.WARNING):
        learner.announcement = Announcement(2)
        assert version_after_a_while(policy, observation) == 1
    told = [record.getMessage() for record in caplog.records if record.name == "actor.local_policy"]
    assert [message[:9] for message in told] == ["Policy 2 "]
    assert learner.num_fetches == 2
    learner.announcement = Announcement(3)
    assert version_after_a_while(policy, observation, wanted=3) == 3


def test_a_full_disk_is_no_business_of_the_control_loop(
    learner: Learner, policy: FollowingPolicy, observation: Observation, caplog: pytest.LogCaptureFixture
):
    assert version_after_a_while(policy, observation) == 1
    learner.error, learner.announcement = OSError(28, "No space left on device"), Announcement(3)
    assert version_after_a_while(policy, observation) == 1
    assert "No space left" in caplog.text
    learner.error = None
    assert version_after_a_while(policy, observation, wanted=3) == 3


def test_without_weights_the_answer_is_a_deadline(learner: Learner, policy: FollowingPolicy, observation: Observation):
    learner.announcement = None
    with pytest.raises(DeadlineExceeded, match="no policy"):
        policy.act_async([observation], timeout_s=0.1).result(30)


def test_what_a_model_raises_is_an_error_of_the_policy(
    policy: FollowingPolicy, observation: Observation, monkeypatch: pytest.MonkeyPatch
):
    assert version_after_a_while(policy, observation) == 1

    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LocalPolicy, "act", fail)
    with pytest.raises(PolicyError, match="Policy 1 failed: RuntimeError: mat1"):
        policy.act_async([observation], timeout_s=1).result(30)


def test_the_actions_do_not_depend_on_the_warm_up(learner: Learner, observation: Observation):
    cold, warm = (LocalPolicy(learner.published / "1", SPEC, seed=5) for _ in range(2))
    warm.warm_up([observation, observation])
    np.testing.assert_array_equal(cold.act([observation])[0].actions, warm.act([observation])[0].actions)
