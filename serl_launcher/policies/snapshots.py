"""Copies of a policy's weights, to be written by another thread while training goes on."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from serl_launcher import publication
from serl_launcher.policies.checkpoints import stored_policy
from serl_launcher.policies.formats.hiors import WEIGHTS_FILE, write
from serl_launcher.policies.gaussian import GaussianPolicy, save_gaussian_settings
from serl_launcher.policies.pi0 import Pi0Policy
from serl_launcher.policies.tensor_files import write_tensors
from serl_launcher.publication import FileEntry

_NUM_BUFFERS = 2
"""One is written while the next is filled."""


@dataclass(slots=True)
class _Buffer:
    weights: dict[str, Tensor] = field(default_factory=dict)
    is_free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.is_free.set()


class PolicySnapshot:
    """The policy as it was; belongs to whoever writes it, who must end with `release`."""

    def __init__(self, buffer: _Buffer, write_settings: Callable[[Path], None]) -> None:
        self._buffer = buffer
        self._write_settings = write_settings

    def __call__(self, directory: Path) -> Mapping[str, FileEntry]:
        """Writes the policy into an existing directory; returns the checksums that are known already."""
        path = directory / WEIGHTS_FILE
        publication.take_spare(path)
        blocks = write_tensors(self._buffer.weights, path)
        self._write_settings(directory)
        return {WEIGHTS_FILE: FileEntry(path.stat().st_size, blocks=blocks)}

    def release(self) -> None:
        """Frees the memory for the next snapshot."""
        self._buffer.is_free.set()


class PolicySnapshots:
    """Takes snapshots into memory that is allocated once; on a GPU it is pinned."""

    def __init__(self) -> None:
        self._buffers = [_Buffer() for _ in range(_NUM_BUFFERS)]
        self._lock = threading.Lock()

    def take(self, policy: Pi0Policy | GaussianPolicy) -> PolicySnapshot:
        """Returns the policy as it is now; waits where two snapshots are still being written."""
        with self._lock:
            buffer = next((each for each in self._buffers if each.is_free.is_set()), self._buffers[0])
            buffer.is_free.wait()
            buffer.is_free.clear()
        weights = policy.state_dict() if isinstance(policy, GaussianPolicy) else policy.network.state_dict()
        if buffer.weights.keys() != weights.keys():
            buffer.weights = {name: _room_for(tensor) for name, tensor in weights.items()}
        for name, tensor in weights.items():
            buffer.weights[name].copy_(tensor.detach(), non_blocking=True)
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        return PolicySnapshot(buffer, _settings_of(policy, buffer.weights))


def _settings_of(policy: Pi0Policy | GaussianPolicy, weights: dict[str, Tensor]) -> Callable[[Path], None]:
    """Returns what writes everything but the weights, as it is now."""
    if isinstance(policy, GaussianPolicy):
        return partial(save_gaussian_settings, policy.config, policy.spec)
    return partial(write, stored_policy(policy, weights=weights), with_weights=False)


def _room_for(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=torch.float32, pin_memory=tensor.is_cuda)
