"""Policies on disk: one directory with weights, sizes, robot, statistics and tokenizer.

config.json  spec.json  model.safetensors  norm_stats.json  tokenizer.model
"""

import hashlib
import logging
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.files import sha256_of
from serl_launcher.policies.normalization import read_norm_stats, write_norm_stats
from serl_launcher.policies.pi0 import Pi0Policy
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE = "config.json", "spec.json", "model.safetensors"
STATS_FILE, TOKENIZER_FILE = "norm_stats.json", "tokenizer.model"


def build_policy(config: PolicyConfig, spec: RobotSpec) -> Pi0Policy:
    """Returns a freshly drawn policy; `policy.tokenizer_path` must name a SentencePiece model."""
    if config.tokenizer_path is None:
        raise CheckpointError(
            "A policy from nothing needs a tokenizer: set policy.tokenizer_path, "
            "or checkpoint_path to start from weights."
        )
    policy = Pi0Policy(config, spec, PromptTokenizer.from_file(Path(config.tokenizer_path), config.max_token_len))
    policy.network.initialize_()
    return policy


def save_policy(policy: Pi0Policy, directory: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes a policy into a directory; `dtype` is the one of the stored weights."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in policy.network.state_dict().items()
    }
    save_file(weights, directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(policy.config)))
    (directory / SPEC_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(policy.spec)))
    (directory / TOKENIZER_FILE).write_bytes(policy.tokenizer.model)
    if policy.norm_stats:
        write_norm_stats(directory / STATS_FILE, policy.norm_stats)


def load_policy(directory: Path, *, device: str | torch.device = "cpu", spec: RobotSpec | None = None) -> Pi0Policy:
    """Returns the policy in a directory, strictly: a missing, unexpected or misshapen tensor stops the load.

    Args:
        directory: What `save_policy` wrote.
        device: Where to put the weights.
        spec: Another robot to use the weights for; statistics are then not taken over unless its widths agree.
    """
    for name in (CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if not (directory / name).is_file():
            raise CheckpointError(f"Expected a policy with {name} at {directory}, found none. Check checkpoint_path.")
    config = msgspec.json.decode((directory / CONFIG_FILE).read_bytes(), type=PolicyConfig)
    own_spec = msgspec.json.decode((directory / SPEC_FILE).read_bytes(), type=RobotSpec)
    tokenizer = PromptTokenizer.from_file(directory / TOKENIZER_FILE, config.max_token_len)
    policy = Pi0Policy(config, own_spec if spec is None else spec, tokenizer)
    load_weights_(policy, load_file(directory / WEIGHTS_FILE))
    if (directory / STATS_FILE).is_file() and (spec is None or spec.state_names == own_spec.state_names):
        policy.set_norm_stats(read_norm_stats(directory / STATS_FILE))
    return policy.to(device)


def load_weights_(policy: Pi0Policy, weights: dict[str, Tensor]) -> None:
    """Copies weights into a policy; raises CheckpointError that lists every tensor that does not fit."""
    expected = policy.network.state_dict()
    problems = [f"missing {name}" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"unexpected {name}" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(weights[name].shape)}"
        for name in sorted(expected.keys() & weights.keys())
        if expected[name].shape != weights[name].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:40])
        raise CheckpointError(f"The weights do not fit the policy ({len(problems)} problems):\n  {shown}")
    policy.network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})


def policy_hash(directory: Path) -> str:
    """Returns a short hash (16 hex digits) over every file that decides what a policy does."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE, STATS_FILE, TOKENIZER_FILE):
        if (directory / name).is_file():
            digest.update(f"{name}:{sha256_of(directory / name)};".encode())
    return digest.hexdigest()[:16]
