import threading
import time
from functools import partial

import pytest

from learner.algorithms.flow_actor_critic import FlowActorCritic
from learner.algorithms.reject_sampling import RejectSampling
from learner.algorithms.sac import Sac
from learner.algorithms.sft import Sft
from learner.trainer.publishing import BackgroundPublisher, Snapshotting
from serl_launcher import publication
from serl_launcher.policies.gaussian import GaussianConfig, GaussianPolicy
from serl_launcher.policies.snapshots import PolicySnapshots
from serl_launcher.publication import Publisher
from tests.actor.tiny_robot import SPEC


class Snapshot:
    """Writes one small file, slowly; knows whether it was released."""

    def __init__(self, content=b"x", *, delay_s=0.0, error=None):
        self.content, self.delay_s, self.error = content, delay_s, error
        self.num_released = 0
        self.thread = None

    def __call__(self, directory):
        self.thread = threading.current_thread().name
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        (directory / "weights").write_bytes(self.content)
        return {}

    def release(self):
        self.num_released += 1


@pytest.fixture(name="publisher")
def fixture_publisher(tmp_path):
    return BackgroundPublisher(Publisher(tmp_path))


def test_the_trainer_does_not_wait_for_the_disk(publisher, tmp_path):
    slow = Snapshot(delay_s=0.5)
    started = time.monotonic()
    publisher.publish(lambda: slow, 1)
    assert time.monotonic() - started < 0.3
    assert publication.latest(tmp_path) is None
    publisher.wait()
    assert publication.verify(publication.latest(tmp_path).path).version == 1
    assert slow.thread != threading.current_thread().name
    assert slow.num_released == 1
    publisher.close()


def test_of_those_that_wait_only_the_newest_is_written(publisher, tmp_path):
    snapshots = [Snapshot(bytes([number]), delay_s=0.3) for number in range(4)]
    for version, snapshot in enumerate(snapshots):
        publisher.publish(lambda taken=snapshot: taken, version)
        time.sleep(0.05)
    publisher.close()
    assert publication.latest(tmp_path).version == 3
    assert (publication.latest(tmp_path).path / "weights").read_bytes() == b"\x03"
    assert publisher.num_overtaken == 2
    assert [snapshot.num_released for snapshot in snapshots] == [1, 1, 1, 1]


class HeldPublisher(Publisher):
    """A disk that finishes nothing until it may."""

    may_write = threading.Event()

    def publish(self, write, version):
        assert self.may_write.wait(60)
        return super().publish(write, version)


def test_publications_faster_than_the_disk_neither_block_the_trainer_nor_pile_up(tmp_path):
    policy = GaussianPolicy(GaussianConfig(hidden_dims=(4,)), SPEC)
    held = HeldPublisher(tmp_path)
    snapshots, publisher = PolicySnapshots(), BackgroundPublisher(held)
    for version in range(10):  # Would wait for ever if it waited for the disk.
        publisher.publish(partial(snapshots.take, policy), version)
    held.may_write.set()
    publisher.close()
    assert publication.verify(publication.latest(tmp_path).path).version == 9
    assert publisher.num_overtaken >= 8


def test_closing_writes_what_waits(publisher, tmp_path):
    publisher.publish(lambda: Snapshot(delay_s=0.1), 1)
    publisher.publish(lambda: Snapshot(delay_s=0.1), 2)
    publisher.close()
    assert publication.latest(tmp_path).version == 2


def test_a_disk_that_refuses_is_heard_by_the_trainer_and_the_next_publication_is_tried(publisher, tmp_path):
    failing = Snapshot(error=OSError("no space left"))
    publisher.publish(lambda: failing, 1)
    with pytest.raises(OSError, match="no space left"):
        publisher.wait()
    assert failing.num_released == 1
    publisher.publish(Snapshot, 2)
    publisher.close()
    assert publication.latest(tmp_path).version == 2


def test_closing_without_a_publication_is_no_error(publisher):
    publisher.close()


@pytest.mark.parametrize("algorithm", [Sft, RejectSampling, Sac, FlowActorCritic])
def test_every_algorithm_that_acts_is_published_beside_training(algorithm):
    assert issubclass(algorithm, Snapshotting)


def test_an_algorithm_without_snapshots_is_told_apart():
    assert not isinstance(object(), Snapshotting)
