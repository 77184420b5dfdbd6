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
"""One is written while the next is filled or waits."""


@dataclass(slots=True)
class _Buffer:
    weights: dict[str, Tensor] = field(default_factory=dict)


class PolicySnapshot:
    """The policy as it was; belongs to whoever writes it, who must end with `release`."""

    def __init__(
        self, buffer: _Buffer, write_settings: Callable[[Path], None], free: Callable[[_Buffer], None]
    ) -> None:
        self._buffer = buffer
        self._write_settings = write_settings
        self._free = free

    def __call__(self, directory: Path) -> Mapping[str, FileEntry]:
        """Writes the policy into an existing directory; returns the checksums that are known already."""
        path = directory / WEIGHTS_FILE
        publication.take_spare(path)
        blocks = write_tensors(self._buffer.weights, path)
        self._write_settings(directory)
        return {WEIGHTS_FILE: FileEntry(path.stat().st_size, blocks=blocks)}

    def release(self) -> None:
        """Frees the memory for the next snapshot."""
        self._free(self._buffer)


class PolicySnapshots:
    """Takes snapshots into memory that is allocated once; on a GPU it is pinned."""

    def __init__(self) -> None:
        self._free = [_Buffer() for _ in range(_NUM_BUFFERS)]
        self._freed = threading.Condition()

    def take(self, policy: Pi0Policy | GaussianPolicy) -> PolicySnapshot:
        """Returns the policy as it is now; waits until one of two snapshots that are still out is released."""
        with self._freed:
            self._freed.wait_for(lambda: self._free)
            buffer = self._free.pop()
        weights = policy.state_dict() if isinstance(policy, GaussianPolicy) else policy.network.state_dict()
        if buffer.weights.keys() != weights.keys():
            buffer.weights = {name: _room_for(tensor) for name, tensor in weights.items()}
        for name, tensor in weights.items():
            buffer.weights[name].copy_(tensor.detach(), non_blocking=True)
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        return PolicySnapshot(buffer, _settings_of(policy, buffer.weights), self._release)

    def _release(self, buffer: _Buffer) -> None:
        with self._freed:
            self._free.append(buffer)
            self._freed.notify()


def _settings_of(policy: Pi0Policy | GaussianPolicy, weights: dict[str, Tensor]) -> Callable[[Path], None]:
    """Returns what writes everything but the weights, as it is now."""
    if isinstance(policy, GaussianPolicy):
        return partial(save_gaussian_settings, policy.config, policy.spec)
    return partial(write, stored_policy(policy, weights=weights), with_weights=False)


def _room_for(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=torch.float32, pin_memory=tensor.is_cuda)
