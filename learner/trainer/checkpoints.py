"""Checkpoints of a training run: all that the next update depends on.

    checkpoints/00000500/{policy/..., trainer.safetensors, trainer.json, run.json, manifest.json}
    checkpoints/BEST                 number of the best one, where `training.keep_best` asks for it

`policy/` is what a user evaluates or starts from, `run.json` the configuration and the robot it was trained for. A
directory gets its final name only when complete and synced; one that fails its checksums is passed over for the one
before it.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from serl_launcher import failpoints, publication
from serl_launcher.errors import CheckpointError
from serl_launcher.files import sync_directory, write_atomic

logger = logging.getLogger(__name__)

_TENSORS, _SCALARS, _POLICY, _ABOUT = "trainer.safetensors", "trainer.json", "policy", "run.json"
_SCALAR_FIELDS = ("algorithm", "mixture", "seconds_trained")
_TEMPORARY_PREFIX = ".tmp-"
BEST = "BEST"


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
    counters: dict[str, float] = field(default_factory=dict)
    """Other counters of the trainer, and what was measured last."""


class Checkpoints:
    """The checkpoints of one run; one writer at a time."""

    def __init__(self, root: Path, *, keep: int, score: Callable[[Path], float | None] | None = None) -> None:
        """Uses `root`, which `save` makes; all are deleted but the newest `keep`, and the best by `score`."""
        self._root = root
        self._keep = max(keep, 1)
        self._score = score
        self.about: bytes = b"{}"
        """JSON that every checkpoint holds as `run.json`."""

    def save(self, num_updates: int, save_policy: Callable[[Path], None], state: TrainerState) -> Path:
        """Writes a checkpoint, unless there is an intact one of the same number; returns its directory."""
        return self.seal(self.write(num_updates, save_policy, state))

    def write(self, num_updates: int, save_policy: Callable[[Path], None], state: TrainerState) -> Path:
        """Writes the files of a checkpoint, which counts from `seal` on; returns where they are for now."""
        temporary = self._root / f"{_TEMPORARY_PREFIX}{num_updates}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / _POLICY).mkdir(parents=True)
        save_policy(temporary / _POLICY)
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.tensors.items()}
        save_file(tensors, temporary / _TENSORS)
        scalars = {key: getattr(state, key) for key in (*_SCALAR_FIELDS, "counters")}
        (temporary / _SCALARS).write_text(json.dumps(scalars))
        (temporary / _ABOUT).write_bytes(self.about)
        return temporary

    def seal(self, written: Path) -> Path:
        """Forces a written checkpoint to disk and gives it its name; returns its directory.

        An intact one of the same number stays instead: the same update, written before the run was stopped.
        """
        num_updates = int(written.name.removeprefix(_TEMPORARY_PREFIX).split("-")[0])
        publication.seal_directory(written, num_updates)
        failpoints.reached("checkpoint written")
        final = self._root / f"{num_updates:08d}"
        if final.is_dir() and _is_intact(final):
            shutil.rmtree(written)
        else:
            self._name(written, final)
        best = self.mark_best()
        for old in self._complete()[: -self._keep]:
            if old != best:
                shutil.rmtree(old, ignore_errors=True)
        return final

    def _name(self, written: Path, final: Path) -> None:
        """Gives a sealed checkpoint its name, which a damaged one may have: no directory takes the name of another."""
        damaged = written.with_name(f"{written.name}-damaged")
        if final.is_dir():
            final.rename(damaged)
            failpoints.reached("checkpoint aside")
        written.rename(final)
        sync_directory(self._root)
        failpoints.reached("checkpoint renamed")
        shutil.rmtree(damaged, ignore_errors=True)

    def best(self) -> Path | None:
        """Returns the best checkpoint as of the last `save`; None where none was scored."""
        try:
            path = self._root / (self._root / BEST).read_text().strip()
        except FileNotFoundError:
            return None
        return path if (path / publication.MANIFEST).is_file() else None

    def mark_best(self) -> Path | None:
        """Names the best checkpoint in `BEST`, by what is known now; returns it, None where none has a score."""
        if self._score is None:
            return None
        scored = [(score, path) for path in self._complete() if (score := self._score(path)) is not None]
        if not scored:
            return None
        best = max(scored)[1]
        write_atomic(self._root / BEST, f"{best.name}\n".encode())
        return best

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


def _is_intact(checkpoint: Path) -> bool:
    try:
        publication.verify(checkpoint)
    except CheckpointError:
        return False
    return True


def policy_of(checkpoint: Path) -> Path:
    """Returns the directory of the policy in a checkpoint."""
    return checkpoint / _POLICY


def read_state(checkpoint: Path) -> TrainerState:
    """Returns what was saved beside the policy; holds no code, so that a foreign checkpoint cannot run any."""
    scalars = json.loads((checkpoint / _SCALARS).read_text())
    return TrainerState(
        tensors=load_file(checkpoint / _TENSORS),
        counters=scalars.get("counters", {}),
        **{key: scalars[key] for key in _SCALAR_FIELDS},
    )


def read_counters(checkpoint: Path) -> dict[str, float]:
    """Returns the trainer's counters alone."""
    return json.loads((checkpoint / _SCALARS).read_text()).get("counters", {})
