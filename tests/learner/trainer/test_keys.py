"""Every key of `algo` and `training` changes what a run does: here, or in the test that is named."""

import copy
import re
import threading
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from learner.trainer.build import build_trainer
from serl_launcher.config.training import AlgoConfig, TrainingConfig
from serl_launcher.errors import ConfigError
from serl_launcher.metrics import read_rows
from serl_launcher.run_directory import RunDirectory
from serl_launcher.types import Outcome

CHANGES = {
    "algo.batch_size": 2, "algo.noise_samples": 2, "algo.max_updates": 3, "algo.max_seconds": 1e-9,
    "algo.publish_every": 3, "algo.image_augmentation": "none", "training.mixed_precision": "bf16",
    "training.checkpoint_period": 2, "training.keep_checkpoints": 1, "training.keep_best": "held_out",
    "training.held_out_period": 1, "training.held_out_samples": 3, "training.num_threads": 2,
}  # fmt: skip
ELSEWHERE = {
    "algo.name": "test_a_resumed_run_continues_bit_by_bit_and_its_policy_acts",
    "algo.training_starts": "test_rejection_sampling_waits_for_accepted_steps",
    "algo.success_threshold": "test_without_a_schedule_the_threshold_is_fixed",
    "algo.threshold_schedule": "test_the_threshold_rises_with_accepted_episodes_only",
    "algo.threshold_period": "test_the_threshold_rises_with_accepted_episodes_only",
    "algo.update_to_data": "test_the_limiter_holds_updates_back_until_new_steps_come",
    "algo.min_online_updates": "test_the_first_updates_are_free",
    "algo.stop_after_episodes": "test_data_collection_ends_after_its_episodes",
    "algo.optimizer": "test_every_key_of_the_optimizer_changes_the_weights",
    "algo.critic_optimizer": "test_every_key_of_the_optimizer_changes_the_weights",
    "algo.temperature_optimizer": "test_every_key_of_the_optimizer_changes_the_weights",
    "algo.rl_steps": "test_supervised_updates_of_a_cycle_leave_the_critics_alone",
    "algo.sft_steps": "test_supervised_updates_of_a_cycle_leave_the_critics_alone",
    "algo.sac": "test_every_key_of_the_actor_critic_changes_what_is_learned",
    "algo.classifier": "test_success_is_learned_and_survives_the_disk",
    "training.num_gpus": "test_a_gpu_that_is_not_there_is_refused",
    "training.num_cpu_ranks": "test_twenty_killed_ranks_end_in_the_same_number_of_updates",
    "training.gradient_accumulation_steps": "test_four_parts_of_eight_equal_one_batch_of_32",
    "training.deepspeed_config": "test_two_ranks_of_zero_2_equal_one_without_it",
    "training.max_skipped_updates": "test_after_several_in_a_row_the_run_continues_from_its_last_checkpoint",
    "training.max_rollbacks": "test_going_back_too_often_gives_up",
}
TIMES = ("train/updates_per_s", "train/seconds")


def test_every_key_has_its_test():
    keys = {f"algo.{item.name}" for item in fields(AlgoConfig)}
    keys |= {f"training.{item.name}" for item in fields(TrainingConfig)}
    assert keys == {*CHANGES, *ELSEWHERE}
    tests = Path(__file__).resolve().parents[2]
    written = {
        name for path in tests.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert set(ELSEWHERE.values()) <= written


def seen(run, identifier, key=None):
    """Trains; returns all that tells one run from another, but how long it took."""
    config = copy.deepcopy(run.config)
    config.unique_identifier = identifier
    if key is not None:
        group, name = key.split(".")
        setattr(getattr(config, group), name, CHANGES[key])
    AcceleratorState._reset_state(reset_partial_state=True)  # It keeps the first precision of a process.
    assert build_trainer(config).run(threading.Event())
    directory = RunDirectory.of(config)
    rows = [{name: value for name, value in row.items() if name not in (*TIMES, "time", "wall_time_s")}
            for row in read_rows(directory.metrics / "trainer.jsonl")]  # fmt: skip
    return rows, sorted(path.name for path in directory.checkpoints.iterdir()), torch.get_num_threads()


@pytest.mark.timeout(600)
def test_every_key_changes_a_run(run):
    run.record(*[Outcome.SUCCESS] * 6, root=run.demonstrations)
    run.config.dataset.held_out_fraction = 0.3
    run.config.training.held_out_period = 2
    usual = seen(run, "usual")
    assert seen(run, "again") == usual
    threads = torch.get_num_threads()
    try:
        assert not [key for key in CHANGES if seen(run, key.replace(".", "-"), key) == usual]
    finally:
        torch.set_num_threads(threads)
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(run):
    run.config.training.num_gpus = 1
    with pytest.raises(ConfigError, match="finds no GPU"):
        build_trainer(run.config)
