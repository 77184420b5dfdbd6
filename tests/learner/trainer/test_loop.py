import json
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from learner.trainer.build import build_trainer
from learner.trainer.checkpoints import Checkpoints, policy_of, read_state
from serl_launcher import publication
from serl_launcher.errors import ConfigError
from serl_launcher.metrics import read_rows
from serl_launcher.policies import load_policy
from serl_launcher.run_directory import RunDirectory
from serl_launcher.types import Outcome
from tests.learner.conftest import SPEC


def finish(run):
    trainer = build_trainer(run.config)
    assert trainer.run(threading.Event())
    return trainer


def newest_policy(run):
    published = publication.latest(run.directory.policies)
    assert published is not None
    return published


def newest_checkpoint(run):
    path = Checkpoints(run.directory.checkpoints, keep=3).newest()
    assert path is not None
    return path


def assert_same_checkpoints(one, other):
    for name in ("policy/model.safetensors", "trainer.safetensors"):
        mine, theirs = load_file(one / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert torch.equal(mine[key], theirs[key]), key
    mine, theirs = read_state(one), read_state(other)
    assert mine.algorithm == theirs.algorithm
    assert mine.mixture == theirs.mixture


@pytest.fixture(name="sft")
def fixture_sft(run):
    run.record(*[Outcome.SUCCESS] * 3, root=run.demonstrations)
    return run


def test_a_run_ends_at_its_last_update_with_policy_and_checkpoint(sft):
    trainer = finish(sft)
    assert trainer.status()["phase"] == "finished"
    assert trainer.status()["updates"] == 6
    assert newest_policy(sft).version == 6
    assert newest_checkpoint(sft).name == "00000006"


def test_the_published_policy_is_the_checkpoint_and_acts(sft):
    finish(sft)
    published = newest_policy(sft)
    checkpoint = policy_of(newest_checkpoint(sft))
    assert (published.path / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert load_policy(checkpoint).norm_stats


def test_the_starting_policy_is_published_before_the_first_update(sft):
    sft.config.algo.max_updates = 0
    finish(sft)
    assert newest_policy(sft).version == 0


def test_metrics_have_one_row_per_update(sft):
    finish(sft)
    rows = read_rows(sft.directory.metrics / "trainer.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all({"train/loss", "train/lr", "train/grad_norm", "replay/update_to_data"} <= row.keys() for row in rows)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_continues_bit_by_bit(sft, ema):
    sft.config.algo.optimizer.ema = ema
    finish(sft)
    whole = newest_checkpoint(sft)
    sft.config.unique_identifier = "halves"
    directory = RunDirectory.of(sft.config)
    halves = replace(sft, directory=directory)
    halves.config.algo.max_updates = 3
    finish(halves)
    halves.config.algo.max_updates = 6
    finish(halves)
    assert_same_checkpoints(newest_checkpoint(halves), whole)


def test_a_stopped_run_leaves_a_checkpoint_and_is_not_finished(sft):
    trainer, stop = build_trainer(sft.config), threading.Event()
    stop.set()
    assert not trainer.run(stop)
    assert trainer.status()["phase"] != "finished"
    assert newest_checkpoint(sft).name == "00000000"


@pytest.mark.parametrize("update", [3, 6])  # Found out at the next checkpoint, and at the end.
def test_a_checkpoint_that_the_disk_refuses_ends_the_run(sft, update):
    in_the_way = sft.directory.checkpoints / f"{update:08d}"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a directory is to be")
    with pytest.raises(NotADirectoryError, match=in_the_way.name):
        finish(sft)


def test_training_time_survives_a_resume_and_ends_the_run(sft):
    finish(sft)
    sft.config.algo.max_updates = 10**6
    sft.config.algo.max_seconds = 1e-3
    trainer = finish(sft)
    assert trainer.status()["updates"] == 6


def test_a_run_that_fell_back_to_a_checkpoint_publishes_a_higher_version(sft):
    finish(sft)
    (sft.directory.checkpoints / "00000006" / "trainer.safetensors").write_bytes(b"damaged")
    sft.config.algo.max_updates = 4
    finish(sft)
    assert newest_policy(sft).version == 7


def test_the_averaged_weights_are_published(sft):
    sft.config.algo.optimizer.ema = 0.99
    finish(sft)
    averaged = load_file(newest_policy(sft).path / "model.safetensors")
    raw = read_state(newest_checkpoint(sft)).tensors
    assert any(key.startswith("weights/") for key in raw)
    assert len(averaged) > 0


def test_supervised_learning_without_demonstrations_is_refused(run):
    with pytest.raises(ConfigError, match="repo_id"):
        build_trainer(run.config)


def test_rejection_sampling_waits_for_accepted_steps(sft):
    sft.config.algo.name = "reject_sampling_pi0"
    sft.config.algo.training_starts = 8
    trainer, stop = build_trainer(sft.config), threading.Event()
    finished = []
    thread = threading.Thread(target=lambda: finished.append(trainer.run(stop)))
    thread.start()
    try:
        sft.record(Outcome.FAILURE)
        time.sleep(1.0)
        assert trainer.status()["phase"] == "waiting"
        assert trainer.status()["updates"] == 0
        assert newest_policy(sft).version == 0
        sft.record(Outcome.SUCCESS, first=1)
        thread.join(20)
    finally:
        stop.set()
        thread.join(20)
    assert finished == [True]
    assert trainer.status()["accepted_episodes"] == 1
    assert trainer.status()["replay_steps"] == 16
    assert trainer.progress.seconds_trained < 15


def test_the_limiter_holds_updates_back_until_new_steps_come(sft):
    sft.config.algo.name = "reject_sampling_pi0"
    sft.config.algo.training_starts = 1
    sft.config.algo.update_to_data = 0.25
    sft.record(Outcome.SUCCESS)
    trainer, stop = build_trainer(sft.config), threading.Event()
    thread = threading.Thread(target=lambda: trainer.run(stop))
    thread.start()
    try:
        time.sleep(2.0)
        assert trainer.status()["updates"] == 2
        sft.record(Outcome.FAILURE, first=1)
        deadline = time.monotonic() + 10
        while trainer.status()["updates"] != 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert trainer.status()["updates"] == 4
    finally:
        stop.set()
        thread.join(20)


def test_the_rate_restarts_with_newly_accepted_episodes(sft):
    sft.config.algo.name = "reject_sampling_pi0"
    sft.config.algo.training_starts = 1
    sft.config.algo.optimizer.schedule = "restart"
    sft.config.algo.optimizer.restart_every_episodes = 2
    sft.record(Outcome.SUCCESS)
    finish(sft)
    sft.record(Outcome.SUCCESS, first=1)
    sft.config.algo.max_updates = 9
    finish(sft)
    rates = [row["train/lr"] for row in read_rows(sft.directory.metrics / "trainer.jsonl")]
    assert rates[6:9] == rates[:3]
    assert read_state(newest_checkpoint(sft)).algorithm["schedule_start"] == 6


def test_a_checkpoint_tells_its_configuration_and_its_robot(sft):
    finish(sft)
    about = json.loads((newest_checkpoint(sft) / "run.json").read_text())
    assert about["config"]["algo"]["batch_size"] == 4
    assert about["spec_digest"] == SPEC.digest()
