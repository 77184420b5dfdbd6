"""`python -m learner` as its users start it: real processes, real sockets, SIGKILL."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from actor.spool import Spool
from learner.replay.reader import ReplayDataset
from learner.trainer.checkpoints import Checkpoints
from serl_launcher import publication
from serl_launcher.config.transport import TransportConfig
from serl_launcher.events import EpisodeEnded, EpisodeStarted
from serl_launcher.status import read_status
from serl_launcher.transport.client import LearnerClient
from serl_launcher.types import Observation, Outcome
from tests.learner.conftest import PROMPT, SPEC
from tests.recorded_episodes import make_episode

GEMMA = "width=16 depth=1 mlp_dim=16 num_heads=2 num_kv_heads=1 head_dim=8"
VISION = "image_size=16 patch_size=8 width=16 depth=1 mlp_dim=16 num_heads=2"
PATIENCE_S = 90.0

pytestmark = pytest.mark.slow


def free_ports():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class LearnerProcess:
    """One `python -m learner` of a run in miniature, and what its files tell."""

    def __init__(self, run, tokenizer_path, *overrides):
        self.directory = run.directory
        self.ports = free_ports()
        policy = [f"policy.{part}.{item}" for part in ("language", "expert") for item in GEMMA.split()]
        policy += [f"policy.vision.{item}" for item in VISION.split()]
        self.overrides = [
            *policy, f"policy.tokenizer_path={tokenizer_path}", "policy.vocab_size=64", "policy.max_token_len=16",
            "policy.horizon=4", "policy.max_state_dim=3", "policy.max_action_dim=3", "policy.num_steps=2",
            f"output_dir={run.config.output_dir}", f"unique_identifier={run.config.unique_identifier}",
            f"transport.request_port={self.ports[0]}", f"transport.broadcast_port={self.ports[1]}",
            "transport.dead_after_s=2", "algo.batch_size=4", "dataset.noop_threshold=0", *overrides,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-m", "learner", *self.overrides], env=environment)

    def wait(self):
        return self.process.wait(PATIENCE_S)

    def status(self, name):
        return read_status(self.directory.status(name)) or {}

    def wait_until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, f"The learner ended with {self.process.returncode}."
            assert time.monotonic() < deadline, "Timed out."
            time.sleep(0.05)

    def kill(self, name):
        pid = self.status(name)["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: self.status(name).get("pid", pid) != pid)


@pytest.fixture(name="learner")
def fixture_learner(run, tokenizer_path):
    started = []

    def start(*overrides):
        started.append(LearnerProcess(run, tokenizer_path, *overrides))
        return started[-1]

    yield start
    for learner in started:
        if learner.process.poll() is None:
            learner.process.send_signal(signal.SIGINT)
            try:
                learner.process.wait(30)
            except subprocess.TimeoutExpired:
                learner.process.kill()
                learner.process.wait()


@contextmanager
def connected_actor(learner, path):
    config = TransportConfig(request_port=learner.ports[0], broadcast_port=learner.ports[1])
    spool = Spool(path, max_bytes=2**26)
    client = LearnerClient(config, "127.0.0.1", actor_id="a", spec=SPEC, spool=spool)
    client.start()
    try:
        yield spool, client
    finally:
        client.close()
        spool.close()


def record(spool, number, outcome):
    episode = make_episode(SPEC, number, 8, outcome=outcome, prompt=PROMPT)
    spool.append(EpisodeStarted(episode.episode_id, PROMPT, time.time(), number))
    for step in episode.steps:
        spool.append(step)
    spool.append(EpisodeEnded(episode.episode_id, 8, episode.final_observation, outcome, "script", time.time()))


def observation():
    images = {camera.name: np.zeros(camera.shape, np.uint8) for camera in SPEC.cameras}
    return Observation(images=images, state=np.zeros(3, np.float32), prompt=PROMPT)


@pytest.fixture(name="demonstrations")
def fixture_demonstrations(run):
    run.record(*[Outcome.SUCCESS] * 2, root=run.demonstrations)
    return f"dataset.repo_id=[{run.demonstrations}]"


def test_supervised_training_ends_by_itself_with_a_policy(learner, demonstrations):
    process = learner("algo=sft_pi0", demonstrations, "algo.max_updates=12", "algo.publish_every=5")
    assert process.wait() == 0
    assert process.status("trainer")["phase"] == "finished"
    published = publication.latest(process.directory.policies)
    assert published is not None
    assert published.version == 12
    assert (process.directory.logs / "trainer.log").read_text()
    assert "Sealed 0 of 0" in (process.directory.logs / "server.log").read_text()


def test_training_survives_sigkill_of_trainer_and_server(learner, demonstrations, tmp_path):
    process = learner(
        "algo=reject_sampling_pi0", demonstrations, "algo.max_seconds=6", "algo.training_starts=8",
        "algo.publish_every=5", "training.checkpoint_period=10",
    )  # fmt: skip
    with connected_actor(process, tmp_path / "spool") as (spool, client):
        process.wait_until(lambda: process.status("server").get("ready", False))
        assert process.status("server")["policy_version"] >= 0
        assert client.act([observation()], timeout_s=10)[0].actions.shape == (4, 3)
        for number, outcome in enumerate((Outcome.SUCCESS, Outcome.FAILURE)):
            record(spool, number, outcome)
        process.wait_until(lambda: process.status("trainer").get("updates", 0) > 20)
        process.kill("trainer")
        process.wait_until(lambda: process.status("trainer").get("updates", 0) > 20)
        process.kill("server")
        record(spool, 2, Outcome.SUCCESS)
        process.wait_until(lambda: client.announcement is not None and client.announcement.stop)
        assert client.flush(20)
    assert process.wait() == 0
    replay = ReplayDataset(process.directory.replay)
    assert replay.episodes.outcome.tolist() == ["success", "failure", "success"]
    assert process.status("trainer")["seconds_trained"] >= 6
    assert process.status("trainer")["accepted_episodes"] >= 1


def test_one_interrupt_ends_all_in_good_order_and_the_run_continues(learner, demonstrations, run):
    process = learner("algo=sft_pi0", demonstrations)
    process.wait_until(lambda: process.status("trainer").get("updates", 0) > 5)
    process.process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    saved = Checkpoints(run.directory.checkpoints, keep=3).newest()
    assert saved is not None
    num_updates = int(saved.name)
    again = learner("algo=sft_pi0", demonstrations, f"algo.max_updates={num_updates + 3}", "resume=must")
    assert again.wait() == 0
    assert again.status("trainer")["updates"] == num_updates + 3


def test_an_existing_run_is_refused_where_a_new_one_is_wanted(learner, run):
    run.directory.journal.mkdir(parents=True)
    assert learner("resume=never").wait() == 2


def test_data_collection_ends_after_its_episodes(learner, tmp_path):
    process = learner("algo=data_collection", "algo.stop_after_episodes=2")
    with connected_actor(process, tmp_path / "spool") as (spool, client):
        for number in range(2):
            record(spool, number, Outcome.SUCCESS)
        process.wait_until(lambda: client.announcement is not None and client.announcement.stop)
        assert client.flush(20)
    assert process.wait() == 0
    assert ReplayDataset(process.directory.replay).num_episodes == 2


def test_data_collection_needs_no_torch(learner):
    process = learner("algo=data_collection")
    process.wait_until(lambda: process.status("server").get("ready", False))
    pid = process.status("server")["pid"]
    with open(f"/proc/{pid}/maps") as maps:  # noqa: PTH123 - Not a file of ours.
        assert "libtorch" not in maps.read()


def test_a_wrong_checkpoint_path_ends_the_learner_at_once_and_says_why(learner, run, demonstrations, tmp_path):
    process = learner("algo=sft_pi0", demonstrations, f"checkpoint_path={tmp_path / 'nowhere'}")
    assert process.wait() == 2
    log = (run.directory.logs / "trainer.log").read_text()
    assert log.count("there is no directory") == 1
