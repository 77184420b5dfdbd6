"""Every key of the configuration is read, and every learning key changes what is learned.

Keys of `algo` and `training` beside those of optimizers and critics: `tests/learner/trainer/test_keys`.
"""

import ast
import dataclasses
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from learner.trainer.optimization import Optimization
from learner.trainer.schedule import is_restart_due
from serl_launcher.config import RunConfig
from serl_launcher.config.sac import GripperConfig, SacConfig
from serl_launcher.config.training import OptimizerConfig
from tests.learner.algorithms.test_sac import batch_of, build, config_of, memory

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("actor", "learner", "robot_infra", "serl_launcher", "tools")


def leaves(kind, prefix=""):
    """Yields the dotted name of every key."""
    for item in fields(kind):
        inner = item.type if isinstance(item.type, type) else None
        name = f"{prefix}{item.name}"
        if inner is not None and is_dataclass(inner):
            yield from leaves(inner, f"{name}.")
        else:
            yield name


def test_every_key_is_read_somewhere():
    """An attribute of that name is read outside the schema's own checks (or by a property of the schema)."""
    read = set()
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            if path.parent.name == "config":
                checks = [node for node in ast.walk(tree)
                          if isinstance(node, ast.FunctionDef) and node.name == "__post_init__"]  # fmt: skip
                ignored = {id(inner) for node in checks for inner in ast.walk(node)}
            else:
                ignored = set()
            read |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in ignored
            }
    dead = [name for name in leaves(RunConfig) if name.rpartition(".")[2] not in read]
    assert not dead


OTHER_SAC = {
    "discount": 0.5, "soft_target_update_rate": 0.5, "hidden_dims": [8], "critic_layer_norm": False,
    "critic_ensemble_size": 3, "critic_subsample_size": 1, "cta_ratio": 2, "actor_training_starts": 2,
    "temperature_init": 0.1, "target_entropy": 3.0, "backup_entropy": False, "actor_value": "mean", "reward_scale": 2.0,
    "reward_bias": 1.0, "cql_weight": 1.0, "gripper": GripperConfig(action="gripper", state="opening"),
}  # fmt: skip
OTHER_CQL = {"cql_samples": 2, "cql_calibrated": False}
ELSEWHERE = {
    "image_features": "test_images_are_learned_from_as_they_were_recorded",
    "image_shift": "test_a_shift_moves_all_cameras_of_a_sample_alike",
    "reward_from": "test_a_corrected_label_changes_the_rewards",
    "distill_weight": "test_a_heavy_distillation_holds_the_policy_at_its_beginning",
    "sampler": "test_the_divergence_of_a_shifted_flow_by_hand",
    "sampler_noise": "test_the_divergence_of_a_shifted_flow_by_hand",
    "target_divergence": "test_a_policy_that_diverges_too_far_is_held_by_a_rising_temperature",
    "critic_features": "test_critics_on_the_backbone_do_not_train_it",
}
"""Keys of images and flow policies, and the tests that change them."""


def learned(**sac):
    """Returns numbers that tell what three updates made of policy and critics."""
    policy, algorithm = build(config_of(**{"critic_ensemble_size": 2, "cql_weight": 0.0, **sac}))
    kept = memory()
    for seed in range(3):
        batch = batch_of(kept, seed)
        # Half of the episodes go on, so that what follows counts.
        batch.discount[::2] = sac.get("discount", 0.9)
        batch.return_to_go = batch.reward + 5.0
        algorithm.update(batch)
    tensors, _ = algorithm.state()
    values = [*policy.state_dict().values(), *(value for key, value in tensors.items() if "rng" not in key)]
    return [float(value.detach().double().abs().sum()) for value in values]


def test_every_key_of_the_actor_critic_changes_what_is_learned():
    assert {item.name for item in fields(SacConfig)} == {*OTHER_SAC, *OTHER_CQL, *ELSEWHERE}
    usual = learned()
    assert usual == learned()
    same = [name for name, value in OTHER_SAC.items() if learned(**{name: value}) == usual]
    usual = learned(cql_weight=1.0)
    same += [name for name, value in OTHER_CQL.items() if learned(cql_weight=1.0, **{name: value}) == usual]
    assert not same


OTHER_OPTIMIZER = {
    "name": "muon", "lr": 0.2, "betas": [0.5, 0.9], "eps": 1e-2, "weight_decay": 0.5, "max_grad_norm": 1e-3,
    "schedule": "constant", "num_warmup_steps": 1, "num_decay_steps": 3, "decay_lr": 0.05, "ema": 0.5,
}  # fmt: skip


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x):
        return self.layers[0](x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Layers()

    def forward(self, x):
        return self.model(x)


def optimized(config):
    torch.manual_seed(0)
    module = Model()
    optimization = Optimization(module, config, Accelerator(cpu=True))
    x = torch.randn(8, 3)
    for _ in range(4):
        optimization.update([x], lambda each: optimization.module(each).square().mean())
    with optimization.published_weights():
        return [float(parameter.detach().double().sum()) for parameter in module.parameters()]


@pytest.mark.parametrize("name", OTHER_OPTIMIZER)
def test_every_key_of_the_optimizer_changes_the_weights(name):
    usual = OptimizerConfig(lr=0.1, num_warmup_steps=0, num_decay_steps=8, weight_decay=0.0)
    assert optimized(replace(usual, **{name: OTHER_OPTIMIZER[name]})) != optimized(usual)


def test_the_remaining_keys_of_the_optimizer():
    walked = {*OTHER_OPTIMIZER, "muon_lr_ratio", "restart_every_episodes"}
    assert {item.name for item in fields(OptimizerConfig)} == walked
    muon = OptimizerConfig(name="muon", lr=0.1, num_warmup_steps=0)
    assert optimized(dataclasses.replace(muon, muon_lr_ratio=2.0)) != optimized(muon)
    restart = OptimizerConfig(schedule="restart", restart_every_episodes=5)
    assert is_restart_due(6, 0, restart)
    assert not is_restart_due(6, 0, dataclasses.replace(restart, restart_every_episodes=10))
