"""Every key of Hi-ORS's configuration (base, algo, task, reward_classifier at 5fa4b23) is a key here, or explained."""

from pathlib import Path

import pytest

from serl_launcher.config import load
from serl_launcher.config.reference_keys import RENAMED, told_of
from serl_launcher.config.schema_text import free_keys, known_keys
from serl_launcher.errors import ConfigError

BASE = """
unique_identifier seed learner actor ip batch_size replay_buffer_capacity random_steps log_period eval_period
checkpoint_period buffer_period eval_checkpoint_step eval_n_trajs checkpoint_path training.num_gpus
training.mixed_precision training.gradient_accumulation_steps training.deepspeed_config logging.logger logging.project
logging.entity
"""
ALGO = """
agent setup_mode rl_steps sft_steps rl_use_offline_data rl_use_online_data sft_use_offline_data sft_use_online_data
train_micro_batch_size_per_gpu cta_ratio discount max_grad_norm max_steps successful_training_starts training_starts
actor_training_starts sft_training_starts steps_per_update sac.soft_target_update_rate sac.reward_bias
sac.critic_ensemble_size sac.critic_subsample_size sac.temperature_init sac.backup_entropy sac.target_entropy
sac.cql_weight sac.distill_weight optimizer.actor.lr optimizer.critic.lr optimizer.temperature.lr
lr_scheduler.num_warmup_steps lr_scheduler.num_decay_steps lr_scheduler.peak_lr lr_scheduler.decay_lr
"""
TASK = """
exp_name encoder_type image_keys critic_keys proprio_keys openpi.config_name openpi.checkpoint_dir
critic_network.input_dim critic_network.hidden_dims critic_network.activations critic_network.use_layer_norm
critic_network.activate_final environment.host environment.port environment.save_video environment.hz
environment.wait_for_after_done_time environment.wait_for_after_reset_time environment.image_size
environment.image_crop environment.image_keys environment.reward_type environment.classifier_image_crop
environment.classifier_keys environment.classifier_use_proprio environment.classifier_path
environment.classifier_n_way environment.reset_pose environment.random_reset environment.random_xyz_range
environment.max_state_chunk_len environment.display_image environment.max_episode_length
environment.ignore_step_threshold environment.control_mode environment.action_horizon environment.action_dim
environment.state_dim environment.pose_limits.high environment.pose_limits.low environment.gripper_sleep
environment.gripper_threshold environment.success_threshold dataset.type dataset.lerobot_dir
dataset.replay_buffer_name dataset.successful_buffer_name dataset.image_transforms dataset.repo_id
dataset.observation_keys dataset.episodes dataset.video_backend dataset.local_files_only dataset.use_imagenet_stats
dataset.use_drq dataset.success_threshold
"""
REWARD_CLASSIFIER = "num_steps val_split_ratio"
THEIRS = [key for part in (BASE, ALGO, TASK, REWARD_CLASSIFIER) for key in part.split()]

README = Path(__file__).resolve().parents[2] / "experiments" / "dobot_pnp" / "README.md"


@pytest.mark.parametrize("key", THEIRS)
def test_every_key_of_theirs_is_one_here_or_whoever_sets_it_is_told(key: str) -> None:
    told = told_of(key)
    if told is None:
        assert known_keys()[key] != "section"
    else:
        assert key not in known_keys() or known_keys()[key] == "section"
        with pytest.raises(ConfigError) as raised:
            load([f"{key}=1"])
        assert told in str(raised.value)


def test_the_table_has_no_other_keys() -> None:
    assert {key for key in RENAMED if not any(each == key or each.startswith(f"{key}.") for each in THEIRS)} == set()


@pytest.mark.parametrize("key", RENAMED)
def test_what_takes_its_place_exists_and_what_nothing_replaces_is_explained(key: str) -> None:
    ours = RENAMED[key].ours.partition("=")[0]
    is_free = any(ours.startswith(f"{parent}.") for parent in free_keys())
    assert ours in known_keys() or is_free if ours else RENAMED[key].note


def test_settings_of_the_robot_that_are_named_exist_in_its_task() -> None:
    robot = load(["task=dobot_pnp"]).environment.options
    remote = {"address", "port"}
    for counterpart in RENAMED.values():
        parent, _, name = counterpart.ours.rpartition(".")
        assert parent != "environment.options" or name in robot or name in remote


def test_the_readme_of_the_robot_shows_the_same_table() -> None:
    text = README.read_text()
    for key, counterpart in RENAMED.items():
        ours = f"`{counterpart.ours}`" if counterpart.ours else "not needed"
        assert f"| `{key}` | {ours} | {counterpart.note} |" in text


def test_a_word_of_theirs_gets_ours_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"'environment\.reward_type' is 'actor\.rewards\.sources=\[keyboard\]' here"):
        load(["task=dobot_pnp", "environment.reward_type=human"])
    with pytest.raises(ConfigError, match="is not needed here: `python -m learner` starts one"):
        load(["learner=true"])
