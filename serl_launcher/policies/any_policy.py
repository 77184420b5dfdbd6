"""Loads whatever policy a directory holds, to act with."""

from pathlib import Path

import torch

from serl_launcher.policies.checkpoints import load_policy
from serl_launcher.policies.gaussian import CONFIG_FILE, GaussianPolicy, load_gaussian
from serl_launcher.policies.pi0 import Pi0Policy


def load_any_policy(directory: Path, *, device: str | torch.device = "cpu") -> Pi0Policy | GaussianPolicy:
    """Returns the policy in a directory, by its files, ready to act; raises CheckpointError where there is none.

    On a device named `auto` it acts on a GPU where there is one, else on the CPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if (directory / CONFIG_FILE).is_file():
        return load_gaussian(directory, device=device)
    return load_policy(directory, device=device).freeze_()
