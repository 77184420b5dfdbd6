"""openpi's JAX layout, read without JAX: params/ (orbax: zarr arrays in one OCDBT store) and assets/."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.jax_leaves import convert, infer_config
from serl_launcher.policies.formats.openpi import stored_with_assets
from serl_launcher.policies.formats.sidecar import read_sidecar
from serl_launcher.policies.formats.stored import StoredPolicy

METADATA_FILE, PARAMS = "_METADATA", "params"
_WRAPPERS = ("params", "value")
"""Outermost and innermost keys that openpi's savers add around the model's own."""


def params_directory(directory: Path) -> Path | None:
    """Returns where a checkpoint's arrays lie: `directory`, or its folder params; None where there are none."""
    for candidate in (directory, directory / PARAMS):
        if (candidate / METADATA_FILE).is_file():
            return candidate
    return None


def read(directory: Path) -> StoredPolicy:
    """Returns the policy of a checkpoint step (or of its folder params); LoRA factors are merged.

    Raises:
        CheckpointError: tensorstore is not installed, an array is unreadable, or a leaf is missing or unknown.
    """
    params = params_directory(directory)
    if params is None:
        raise CheckpointError(f"Expected an orbax checkpoint with {METADATA_FILE} at {directory}, found none.")
    leaves = dict(_arrays(params))
    sidecar = read_sidecar(params.parent)
    config = infer_config(leaves) if sidecar is None else sidecar.policy
    return stored_with_assets(params.parent, config, convert(leaves), sidecar)


def _arrays(params: Path) -> Iterator[tuple[str, Tensor]]:
    """Yields every leaf by its path in the model, `/` between keys."""
    try:
        import tensorstore
    except ImportError as exc:
        raise CheckpointError(
            "Reading a JAX checkpoint needs tensorstore: pip install 'hiors[jax-checkpoints]'. "
            "Or convert it elsewhere: python -m tools.convert_checkpoint --from STEP --to DIR --format hiors."
        ) from exc
    metadata = json.loads((params / METADATA_FILE).read_text())
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    for entry in metadata["tree_metadata"].values():
        keys = [str(part["key"]) for part in entry["key_metadata"]]
        spec = {"driver": driver, "kvstore": _store(params, ".".join(keys))}
        try:
            array = tensorstore.open(spec, open=True, read=True).result().read().result()
        except ValueError as exc:
            raise CheckpointError(f"Cannot read {'/'.join(keys)} of {params}: {exc}. Copy it again.") from exc
        yield _model_path(keys), _tensor(array)


def _store(params: Path, name: str) -> dict[str, Any]:
    """Returns tensorstore's description of one array's place."""
    base = f"file://{params.resolve()}/"
    if (params / "manifest.ocdbt").is_file():
        return {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    return {"driver": "file", "path": f"{params.resolve()}/{name}/"}


def _model_path(keys: list[str]) -> str:
    if len(keys) > 1 and keys[0] == _WRAPPERS[0]:
        keys = keys[1:]
    if len(keys) > 1 and keys[-1] == _WRAPPERS[1]:
        keys = keys[:-1]
    return "/".join(keys)


def _tensor(array: np.ndarray) -> Tensor:
    """Returns the numbers in their own type; torch does not know numpy's bfloat16."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(array).view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))
