"""Checkpoints of a training run: all that the next update depends on.

    checkpoints/00000500/{policy/..., trainer.safetensors, trainer.json, manifest.json}

`policy/` is what a user evaluates or starts from. A directory gets its final name only when complete and synced; one
that fails its checksums is passed over for the one before it.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from serl_launcher import publication
from serl_launcher.errors import CheckpointError
from serl_launcher.files import sync_directory

logger = logging.getLogger(__name__)

_TENSORS, _SCALARS, _POLICY = "trainer.safetensors", "trainer.json", "policy"
_SCALAR_FIELDS = ("algorithm", "mixture", "seconds_trained")
_TEMPORARY_PREFIX = ".tmp-"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerState:
    """What a checkpoint holds besides the policy."""

    tensors: dict[str, Tensor]
    """Of the algorithm: optimizer, raw weights, random state."""
    algorithm: dict[str, str | int | float]
    """Its scalars."""
    mixture: dict[str, object]
    """State of the sampler behind the last batch that was learned from; JSON-compatible."""
    seconds_trained: float


class Checkpoints:
    """The checkpoints of one run; one writer at a time."""

    def __init__(self, root: Path, *, keep: int) -> None:
        """Uses `root`, which `save` makes; older checkpoints than the newest `keep` are deleted."""
        self._root = root
        self._keep = max(keep, 1)

    def save(self, num_updates: int, save_policy: Callable[[Path], None], state: TrainerState) -> Path:
        """Writes a checkpoint, replacing one of the same number; returns its directory."""
        temporary = self._root / f"{_TEMPORARY_PREFIX}{num_updates}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / _POLICY).mkdir(parents=True)
        save_policy(temporary / _POLICY)
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.tensors.items()}
        save_file(tensors, temporary / _TENSORS)
        scalars = {key: getattr(state, key) for key in _SCALAR_FIELDS}
        (temporary / _SCALARS).write_text(json.dumps(scalars))
        publication.seal_directory(temporary, num_updates)
        final = self._root / f"{num_updates:08d}"
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync_directory(self._root)
        for old in self._complete()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def newest(self) -> Path | None:
        """Returns the newest intact checkpoint, None where there is none.

        Raises:
            CheckpointError: There are checkpoints, but none is intact.
        """
        complete = self._complete()
        for path in reversed(complete):
            try:
                publication.verify(path)
            except CheckpointError as exc:
                logger.warning("Checkpoint %s is passed over: %s", path.name, exc)
            else:
                return path
        if complete:
            raise CheckpointError(
                f"None of the {len(complete)} checkpoints in {self._root} is intact. Move them away to start afresh."
            )
        return None

    def clean(self) -> None:
        """Deletes what writers left that died halfway."""
        for leftover in self._root.glob(f"{_TEMPORARY_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return sorted(path for path in self._root.glob("[0-9]*") if (path / publication.MANIFEST).is_file())


def policy_of(checkpoint: Path) -> Path:
    """Returns the directory of the policy in a checkpoint."""
    return checkpoint / _POLICY


def read_state(checkpoint: Path) -> TrainerState:
    """Returns what was saved beside the policy; holds no code, so that a foreign checkpoint cannot run any."""
    scalars = json.loads((checkpoint / _SCALARS).read_text())
    return TrainerState(tensors=load_file(checkpoint / _TENSORS), **{key: scalars[key] for key in _SCALAR_FIELDS})
