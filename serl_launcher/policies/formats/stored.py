"""What a checkpoint holds, whatever its layout, and the check that its tensors are exactly the policy's."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.config.tuning import LoraConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.networks.build import build_network
from serl_launcher.networks.lora import merged_state_dict
from serl_launcher.networks.pi0 import Pi0
from serl_launcher.networks.tuning import tune_
from serl_launcher.policies.normalization import NormStats
from serl_launcher.specs import RobotSpec

MAX_SHOWN = 40


@dataclass(kw_only=True, slots=True)
class StoredPolicy:
    """A policy between disk and memory.

    Example:
        StoredPolicy(config=PolicyConfig(name="pi05"), weights={"action_in_proj.bias": ..., ...}, spec=None)
    """

    config: PolicyConfig
    weights: dict[str, Tensor]
    """By the names of our networks, of any floating type; with LoRA factors where `config.tuning` has them."""
    spec: RobotSpec | None = None
    """The robot; None for a base model."""
    norm_stats: dict[str, NormStats] = field(default_factory=dict)
    """Of `state` and `actions`; empty where there are none, or those of several robots."""
    tokenizer: bytes | None = None
    """SentencePiece model; None where the layout has none."""


def check_weights(config: PolicyConfig, weights: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError that lists every missing, unexpected and misshapen tensor of a policy."""
    expected = _empty_network(config).state_dict()
    problems = [f"missing {name}" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"unexpected {name}" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(weights[name].shape)}"
        for name in sorted(expected.keys() & weights.keys())
        if expected[name].shape != weights[name].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:MAX_SHOWN])
        more = f"\n  and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        raise CheckpointError(
            f"The weights do not fit the policy {config.name} ({len(problems)} problems):\n  {shown}{more}"
        )


def merged(stored: StoredPolicy) -> StoredPolicy:
    """Returns the policy without LoRA factors that does the same, for layouts that have none."""
    tuning = dataclasses.replace(stored.config.tuning, lora=LoraConfig())
    config = dataclasses.replace(stored.config, tuning=tuning)
    if not stored.config.tuning.lora.is_on:
        return dataclasses.replace(stored, config=config)
    network = _empty_network(stored.config)
    network.load_state_dict(stored.weights, assign=True)
    return dataclasses.replace(stored, config=config, weights=merged_state_dict(network))


def _empty_network(config: PolicyConfig) -> Pi0:
    """Returns the network a policy has, without memory for its weights."""
    with torch.device("meta"):
        network = build_network(config)
        tune_(network, config.tuning)
    return network
