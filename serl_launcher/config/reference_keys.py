"""What became of the keys of Hi-ORS's configuration: whoever brings one is told what it is called here.

Keys that have the same name and place here (`seed`, `environment.hz`, `training.num_gpus`, ...) are not in the table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What a key of theirs is here.

    Example:
        Counterpart("actor.rewards.sources=[keyboard]", "human, outcome, process, naive are understood")
    """

    ours: str = ""
    """Our key, with a value where that says it better; empty: nothing takes its place."""
    note: str = ""
    """What differs; where nothing takes its place, why it is not needed."""

    def told(self, theirs: str) -> str:
        """Returns a sentence about it."""
        if not self.ours:
            return f"Hi-ORS's {theirs!r} is not needed here: {self.note}."
        return f"Hi-ORS's {theirs!r} is {self.ours!r} here{self.note and f' ({self.note})'}."


_DEAD = "nothing reads it there either"
_MIXTURE = Counterpart("dataset.offline_fraction", "0: online alone, 1: demonstrations alone")
_STARTS = Counterpart("algo.training_starts", "accepted steps, before which no update is made")

RENAMED = {
    # base.yaml
    "learner": Counterpart(note="`python -m learner` starts one"),
    "actor": Counterpart(note="`python -m actor` starts one; below `actor.` are its settings"),
    "batch_size": Counterpart("algo.batch_size", "of all GPUs together"),
    "replay_buffer_capacity": Counterpart("dataset.capacity"),
    "random_steps": Counterpart("actor.policy=random", "for all steps, to try a simulator out"),
    "log_period": Counterpart("logging.log_period"),
    "eval_period": Counterpart(
        "algo.classifier.evaluation_period", "of reward classifiers; policies: `python -m actor eval`"
    ),
    "checkpoint_period": Counterpart("training.checkpoint_period"),
    "buffer_period": Counterpart(note="every sealed episode is in a LeRobot dataset at once"),
    "eval_checkpoint_step": Counterpart("checkpoint_path", "the directory of that step, with actor.mode=eval"),
    "eval_n_trajs": Counterpart("evaluation.num_episodes"),
    # algo/*.yaml
    "agent": Counterpart("algo.name", "chosen by algo=..."),
    "setup_mode": Counterpart(note=_DEAD),
    "rl_steps": Counterpart("algo.rl_steps"),
    "sft_steps": Counterpart("algo.sft_steps"),
    "rl_use_offline_data": _MIXTURE,
    "rl_use_online_data": _MIXTURE,
    "sft_use_offline_data": _MIXTURE,
    "sft_use_online_data": _MIXTURE,
    "train_micro_batch_size_per_gpu": Counterpart(
        "algo.batch_size", "of all GPUs together; training.gradient_accumulation_steps makes it smaller pieces"
    ),
    "cta_ratio": Counterpart("algo.sac.cta_ratio"),
    "discount": Counterpart("algo.sac.discount", "per tick, not per chunk"),
    "max_grad_norm": Counterpart("algo.optimizer.max_grad_norm"),
    "max_steps": Counterpart("algo.max_updates", "an actor's end is actor.num_episodes"),
    "num_steps": Counterpart("algo.max_updates", "with algo=reward_classifier"),
    "val_split_ratio": Counterpart("algo.classifier.validation_fraction", "of the episodes"),
    "training_starts": _STARTS,
    "successful_training_starts": _STARTS,
    "sft_training_starts": _STARTS,
    "actor_training_starts": Counterpart("algo.sac.actor_training_starts"),
    "steps_per_update": Counterpart("algo.publish_every"),
    "sac.soft_target_update_rate": Counterpart("algo.sac.soft_target_update_rate"),
    "sac.reward_bias": Counterpart("algo.sac.reward_bias"),
    "sac.critic_ensemble_size": Counterpart("algo.sac.critic_ensemble_size"),
    "sac.critic_subsample_size": Counterpart("algo.sac.critic_subsample_size"),
    "sac.temperature_init": Counterpart("algo.sac.temperature_init"),
    "sac.backup_entropy": Counterpart("algo.sac.backup_entropy"),
    "sac.target_entropy": Counterpart("algo.sac.target_entropy"),
    "sac.cql_weight": Counterpart("algo.sac.cql_weight"),
    "sac.distill_weight": Counterpart("algo.sac.distill_weight"),
    "optimizer.actor": Counterpart("algo.optimizer"),
    "optimizer.critic": Counterpart("algo.critic_optimizer"),
    "optimizer.temperature": Counterpart("algo.temperature_optimizer"),
    "lr_scheduler.num_warmup_steps": Counterpart("algo.optimizer.num_warmup_steps"),
    "lr_scheduler.num_decay_steps": Counterpart("algo.optimizer.num_decay_steps"),
    "lr_scheduler.peak_lr": Counterpart("algo.optimizer.lr"),
    "lr_scheduler.decay_lr": Counterpart("algo.optimizer.decay_lr"),
    # task/dobot_pnp.yaml
    "exp_name": Counterpart("environment.name", "chosen by task=..."),
    "encoder_type": Counterpart("algo.sac.critic_features", "critics have convolutions of their own, or the policy's"),
    "image_keys": Counterpart("environment.image_keys"),
    "critic_keys": Counterpart(note="critics see all cameras of environment.image_keys"),
    "proprio_keys": Counterpart(note="the robot's spec names the dimensions of its state"),
    "openpi.config_name": Counterpart(note="policy=... chooses the model, the checkpoint says the rest"),
    "openpi.checkpoint_dir": Counterpart("checkpoint_path"),
    "critic_network.input_dim": Counterpart(note="it follows from cameras, state and chunk"),
    "critic_network.hidden_dims": Counterpart("algo.sac.hidden_dims"),
    "critic_network.activations": Counterpart(note="there is one"),
    "critic_network.use_layer_norm": Counterpart("algo.sac.critic_layer_norm"),
    "critic_network.activate_final": Counterpart(note="the last layer is a value and has none"),
    "environment.host": Counterpart(
        "environment.options.address", "of environment.name=remote; the robot's computer runs robot_infra.serve"
    ),
    "environment.port": Counterpart("environment.options.port", "likewise"),
    "environment.wait_for_after_done_time": Counterpart("environment.options.wait_for_after_done_time"),
    "environment.wait_for_after_reset_time": Counterpart("environment.options.wait_for_after_reset_time"),
    "environment.image_crop": Counterpart("environment.options.cameras", "`crop` of each camera"),
    "environment.reward_type": Counterpart(
        "actor.rewards.sources=[keyboard]", "human, outcome, process and naive are understood"
    ),
    "environment.classifier_image_crop": Counterpart("environment.options.cameras", "one crop, for policy and judge"),
    "environment.classifier_keys": Counterpart("algo.classifier.image_keys", "kept in the classifier's own spec"),
    "environment.classifier_use_proprio": Counterpart("algo.classifier.uses_state", "likewise"),
    "environment.classifier_path": Counterpart("actor.rewards.classifier_path"),
    "environment.classifier_n_way": Counterpart("actor.rewards.stage_paths", "one yes-or-no classifier per stage"),
    "environment.reset_pose": Counterpart("environment.options.reset_pose"),
    "environment.random_reset": Counterpart("environment.options.random_reset"),
    "environment.random_xyz_range": Counterpart(
        "environment.options.random_joint_range", "it is added to joints there too"
    ),
    "environment.max_state_chunk_len": Counterpart("policy.horizon"),
    "environment.display_image": Counterpart("actor.console.enabled", "cameras are live on its page"),
    "environment.ignore_step_threshold": Counterpart(
        "dataset.min_episode_steps", "the shortest that is accepted: one more than theirs"
    ),
    "environment.control_mode": Counterpart(note=f"{_DEAD}, the robot is driven by joints"),
    "environment.action_horizon": Counterpart("policy.horizon", "actor.execution_horizon of it are executed"),
    "environment.action_dim": Counterpart(note="the robot's spec says it"),
    "environment.state_dim": Counterpart(note="the robot's spec says it"),
    "environment.pose_limits": Counterpart("environment.options.pose_limits"),
    "environment.gripper_sleep": Counterpart(note=_DEAD),
    "environment.gripper_threshold": Counterpart(note="grippers take any opening from 0 to 1"),
    "environment.success_threshold": Counterpart("algo.success_threshold"),
    "dataset.type": Counterpart(note="it is always a LeRobot dataset"),
    "dataset.lerobot_dir": Counterpart("output_dir", "the replay buffer lies in the directory of the run"),
    "dataset.replay_buffer_name": Counterpart("dataset.replay_name"),
    "dataset.successful_buffer_name": Counterpart(
        note="successful episodes are a view of the replay buffer; `python -m tools.replay export` writes it"
    ),
    "dataset.image_transforms": Counterpart("algo.image_augmentation", "true or false"),
    "dataset.observation_keys": Counterpart("environment.image_keys", "the state is always there"),
    "dataset.episodes": Counterpart(note="all are drawn from; `python -m tools.replay` makes smaller datasets"),
    "dataset.video_backend": Counterpart(note="frames are JPEG in the dataset"),
    "dataset.local_files_only": Counterpart(note="nothing is ever downloaded by itself"),
    "dataset.use_imagenet_stats": Counterpart(note="policies scale pictures themselves, as openpi does"),
    "dataset.use_drq": Counterpart("algo.sac.image_shift", "pixels; 0: none"),
    "dataset.success_threshold": Counterpart("algo.success_threshold"),
}  # fmt: skip


def told_of(key: str) -> str | None:
    """Returns a sentence on what a key of Hi-ORS is here; None where they have no such key that is called otherwise."""
    while key not in RENAMED and "." in key:
        key = key.rpartition(".")[0]
    return RENAMED[key].told(key) if key in RENAMED else None
