"""Loads whatever policy a directory holds, to act with."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from serl_launcher.errors import ConfigError
from serl_launcher.policies.checkpoints import load_policy
from serl_launcher.policies.gaussian import CONFIG_FILE, GaussianPolicy, load_gaussian
from serl_launcher.policies.pi0 import Pi0Policy


def load_any_policy(
    directory: Path, *, device: str | torch.device = "cpu", acting: Mapping[str, str | bool] | None = None
) -> Pi0Policy | GaussianPolicy:
    """Returns the policy in a directory, by its files, ready to act.

    Args:
        directory: Where it is.
        device: Where it acts; `auto` is a GPU where there is one, else the CPU.
        acting: Settings of `policy.acting` that count instead of the policy's own.

    Raises:
        CheckpointError: There is no usable policy.
        ConfigError: It has no such settings.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if (directory / CONFIG_FILE).is_file():
        if acting:
            raise ConfigError(f"The policy in {directory} is a Gaussian one, which has no settings {sorted(acting)}.")
        return load_gaussian(directory, device=device)
    policy = load_policy(directory, device=device)
    if acting:
        policy.adopt_(dataclasses.replace(policy.config, acting=dataclasses.replace(policy.config.acting, **acting)))
    return policy.freeze_()
