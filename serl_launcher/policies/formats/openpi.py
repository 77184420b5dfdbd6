"""openpi's PyTorch layout: model.safetensors  config.json  assets/<asset id>/norm_stats.json."""

import dataclasses
import json
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from serl_launcher.config.policy import GemmaConfig, PolicyConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.names import from_published, to_published
from serl_launcher.policies.formats.sidecar import TOKENIZER_FILE, Sidecar, read_sidecar, read_tokenizer, write_sidecar
from serl_launcher.policies.formats.sizes import infer_config
from serl_launcher.policies.formats.stored import StoredPolicy
from serl_launcher.policies.normalization import NormStats, read_norm_stats, write_norm_stats

logger = logging.getLogger(__name__)

CONFIG_FILE, WEIGHTS_FILE, ASSETS, STATS_FILE = "config.json", "model.safetensors", "assets", "norm_stats.json"
_VARIANTS = {"gemma_2b": GemmaConfig(), "gemma_300m": GemmaConfig(width=1024, mlp_dim=4096)}


def read(directory: Path) -> StoredPolicy:
    """Returns the policy of a directory; horizon and widths not told by a tensor are openpi's defaults."""
    weights = from_published(load_file(directory / WEIGHTS_FILE))
    sidecar = read_sidecar(directory)
    config = infer_config(weights) if sidecar is None else sidecar.policy
    path = directory / CONFIG_FILE
    if path.is_file():
        config = dataclasses.replace(config, horizon=json.loads(path.read_text()).get("action_horizon", config.horizon))
    return stored_with_assets(directory, config, weights, sidecar)


def stored_with_assets(
    directory: Path, config: PolicyConfig, weights: dict[str, torch.Tensor], sidecar: Sidecar | None
) -> StoredPolicy:
    """Returns the policy with the statistics and the tokenizer that lie in a directory of openpi."""
    return StoredPolicy(
        config=config,
        weights=weights,
        spec=None if sidecar is None else sidecar.robot,
        norm_stats=read_assets(directory),
        tokenizer=read_tokenizer(directory),
    )


def read_assets(directory: Path) -> dict[str, NormStats]:
    """Returns the statistics of a checkpoint; none where it has those of several robots."""
    files = sorted((directory / ASSETS).glob(f"**/{STATS_FILE}"))
    if len(files) == 1:
        return read_norm_stats(files[0])
    if files:
        names = ", ".join(str(file.parent.relative_to(directory / ASSETS)) for file in files)
        logger.warning("%s has statistics of several robots (%s); none is used.", directory, names)
    return {}


def write(stored: StoredPolicy, directory: Path) -> None:
    """Writes the policy so that openpi's PyTorch model loads it strictly; robot and tokenizer lie beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(to_published(stored.weights, both_names=False), directory / WEIGHTS_FILE)
    config = {
        "action_dim": stored.config.max_action_dim,
        "action_horizon": stored.config.horizon,
        "paligemma_variant": variant(stored.config.language),
        "action_expert_variant": variant(stored.config.expert),
        "precision": precision(stored),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2))
    write_sidecar(stored, directory)
    if stored.tokenizer is not None:
        (directory / TOKENIZER_FILE).write_bytes(stored.tokenizer)
    if stored.norm_stats:
        assets = directory / ASSETS / ("robot" if stored.spec is None else stored.spec.name)
        assets.mkdir(parents=True, exist_ok=True)
        write_norm_stats(assets / STATS_FILE, stored.norm_stats)


def variant(config: GemmaConfig) -> str:
    """Returns the published name of a stream's sizes, `custom` for sizes that have none."""
    return next((name for name, sizes in _VARIANTS.items() if sizes == config), "custom")


def precision(stored: StoredPolicy) -> str:
    """Returns `bfloat16` or `float32`; raises CheckpointError where the backbone is of another type."""
    dtype = stored.weights["paligemma_with_expert.gemma_expert.model.layers.0.mlp.up_proj.weight"].dtype
    names = {torch.bfloat16: "bfloat16", torch.float32: "float32"}
    if dtype not in names:
        raise CheckpointError(f"Expected weights in float32 or bfloat16, got {dtype}. Convert them with --dtype.")
    return names[dtype]
