"""Policies in the checkpoints of a run: what trains is in each of them, what is frozen lies once beside them.

checkpoints/00000500/policy/{model.safetensors, base.json, ...}     checkpoints/base-0123456789abcdef.safetensors
"""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from serl_launcher.files import sha256_of, sync_directory, sync_file, temporary_name
from serl_launcher.networks.lora import trainable_state_dict
from serl_launcher.policies.checkpoints import save_policy, stored_policy
from serl_launcher.policies.formats import hiors
from serl_launcher.policies.formats.base import Base, write_base
from serl_launcher.policies.pi0 import Pi0Policy

_PREFIX = "base-"


class TrainedPart:
    """Writes one policy again and again; its frozen weights the first time only."""

    def __init__(self) -> None:
        self._base: tuple[Path, str] | None = None

    def save(self, policy: Pi0Policy, directory: Path) -> None:
        """Writes a policy into the existing `directory` of a checkpoint; whole, where nothing is frozen."""
        trained = trainable_state_dict(policy.network)
        frozen = {name: tensor for name, tensor in policy.network.state_dict().items() if name not in trained}
        if not frozen:
            save_policy(policy, directory)
            return
        folder = directory.parents[1]
        if self._base is None or self._base[0].parent != folder or not self._base[0].is_file():
            weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in frozen.items()}
            self._base = _written_once(weights, folder)
        path, digest = self._base
        weights = {name: tensor.cpu().float().contiguous() for name, tensor in trained.items()}
        hiors.write(stored_policy(policy, weights=weights), directory)
        write_base(directory, Base(path=f"../../{path.name}", sha256=digest))


def _written_once(weights: dict[str, Tensor], folder: Path) -> tuple[Path, str]:
    """Returns the file of these weights in a folder, and its SHA-256; a file that is there already stays."""
    for leftover in folder.glob(f".{_PREFIX}*"):
        leftover.unlink()
    temporary = temporary_name(folder / _PREFIX)
    save_file(weights, temporary)
    digest = sha256_of(temporary)
    path = folder / f"{_PREFIX}{digest[:16]}.safetensors"
    if path.is_file():
        temporary.unlink()
    else:
        sync_file(temporary)
        temporary.replace(path)
        sync_directory(folder)
    return path, digest
