"""Policies on disk: written in our own layout or another's, read from any of them.

config.json  spec.json  model.safetensors  norm_stats.json  tokenizer.model
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.files import sha256_of
from serl_launcher.networks.precision import parameter_dtype
from serl_launcher.policies.adoption import still_hold
from serl_launcher.policies.formats import StoredPolicy, check_weights, read_stored, write_stored
from serl_launcher.policies.normalization import NormStats
from serl_launcher.policies.pi0 import Pi0Policy
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

_DECISIVE = ("config.json", "model.safetensors", "base.json", "norm_stats.json", "tokenizer.model")
_DECISIVE_ELSEWHERE = (
    "policy_p*.safetensors",
    "tokenizer/tokenizer.model",
    "assets/**/norm_stats.json",
    "params/manifest.ocdbt",
)
"""Of the layouts of others."""


def build_policy(config: PolicyConfig, spec: RobotSpec) -> Pi0Policy:
    """Returns a freshly drawn policy; `policy.tokenizer_path` must name a SentencePiece model."""
    if config.tokenizer_path is None:
        raise CheckpointError(
            "A policy from nothing needs a tokenizer: set policy.tokenizer_path, "
            "or checkpoint_path to start from weights."
        )
    tokenizer = PromptTokenizer.from_file(
        Path(config.tokenizer_path), config.max_token_len, cleaning=config.prompt_cleaning
    )
    policy = Pi0Policy(config, spec, tokenizer)
    policy.network.initialize_()
    return policy


def save_policy(
    policy: Pi0Policy, directory: Path, *, dtype: torch.dtype = torch.float32, layout: str = "hiors"
) -> None:
    """Writes a policy into a directory.

    Args:
        policy: LoRA factors are kept in our own layout, and merged into their weights in those of others.
        directory: Is made where it is missing.
        dtype: Of the stored weights.
        layout: `hiors`, `lerobot` or `openpi`.
    """
    write_stored(stored_policy(policy, dtype=dtype), directory, layout)


def load_policy(
    directory: Path,
    *,
    device: str | torch.device = "cpu",
    spec: RobotSpec | None = None,
    tokenizer_path: Path | None = None,
    dtype: torch.dtype = torch.float32,
    settings: Callable[[PolicyConfig], PolicyConfig] | None = None,
) -> Pi0Policy:
    """Returns the policy in a directory, strictly: a missing, unexpected or misshapen tensor stops the load.

    Args:
        directory: Our own layout, LeRobot's, openpi's for PyTorch or for JAX; its files and tensor names decide.
        device: Where to put the weights.
        spec: Another robot to use the weights for; statistics are taken over only if they are of its states.
        tokenizer_path: SentencePiece model for where the directory has none; its own is never replaced.
        dtype: Of the weights in memory; in bfloat16 the published list of tensors stays float32.
        settings: Makes other settings of the checkpoint's; where its statistics do not serve them, they are dropped.

    Raises:
        CheckpointError: Nothing usable is there, or it is for no robot and `spec` is None.
    """
    stored = read_stored(directory)
    robot = stored.spec if spec is None else spec
    if robot is None:
        raise CheckpointError(
            f"{directory} is a base model for no robot. Set dataset.repo_id to demonstrations of the robot, "
            "or convert it with --robot spec.json."
        )
    config = stored.config if settings is None else settings(stored.config)
    tokenizer = _tokenizer(stored.tokenizer, directory, tokenizer_path, config)
    with torch.device("meta"):
        policy = Pi0Policy(config, robot, tokenizer)
    weights, stats, own_spec = stored.weights, stored.norm_stats, stored.spec
    load_weights_(policy, weights, device=device, dtype=dtype)
    if stats and _are_of(robot, stats, own_spec) and still_hold(stats, stored.config, config):
        policy.set_norm_stats(stats)
    return policy


def load_weights_(
    policy: Pi0Policy,
    weights: dict[str, Tensor],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Makes `weights` those of a policy, and empties the dictionary, so that no tensor is held twice.

    Raises:
        CheckpointError: A tensor is missing, unexpected or misshapen; all are listed, and nothing was loaded.
    """
    check_weights(policy.config, weights)
    # What was read may be mapped from its file, which others may overwrite: every tensor gets memory of its own.
    placed = {name: weights.pop(name).to(device, parameter_dtype(name, dtype), copy=True) for name in list(weights)}
    policy.network.load_state_dict(placed, assign=True)


def stored_policy(
    policy: Pi0Policy, *, dtype: torch.dtype = torch.float32, weights: dict[str, Tensor] | None = None
) -> StoredPolicy:
    """Returns what is written of a policy, with its weights on the CPU; `weights` are a copy that exists already."""
    if weights is None:
        weights = {
            name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in policy.network.state_dict().items()
        }
    return StoredPolicy(
        config=policy.config,
        weights=weights,
        spec=policy.spec,
        norm_stats=policy.norm_stats,
        tokenizer=policy.tokenizer.model,
    )


def policy_hash(directory: Path) -> str:
    """Returns a short hash (16 hex digits) over every file that decides what a policy does."""
    digest = hashlib.sha256()
    others = [path for pattern in _DECISIVE_ELSEWHERE for path in sorted(directory.glob(pattern))]
    for path in [*(directory / name for name in _DECISIVE), *others]:
        if path.is_file():
            digest.update(f"{path.relative_to(directory)}:{sha256_of(path)};".encode())
    return digest.hexdigest()[:16]


def _tokenizer(own: bytes | None, directory: Path, path: Path | None, config: PolicyConfig) -> PromptTokenizer:
    length, cleaning = config.max_token_len, config.prompt_cleaning
    if own is not None:
        return PromptTokenizer(own, length, cleaning=cleaning)
    file = directory / "tokenizer.model" if path is None else path
    return PromptTokenizer.from_file(file, length, cleaning=cleaning)


def _are_of(robot: RobotSpec, stats: dict[str, NormStats], own_spec: RobotSpec | None) -> bool:
    """Whether statistics are of a robot: it is the checkpoint's own, or the checkpoint names none and widths agree."""
    if own_spec is not None:
        return robot.state_names == own_spec.state_names
    widths = {"state": robot.state_dim, "actions": robot.action_dim}
    return all(key in stats and len(stats[key].mean) == width for key, width in widths.items())
