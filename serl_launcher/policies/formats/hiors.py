"""Our own layout: config.json  spec.json  model.safetensors  norm_stats.json  tokenizer.model  [base.json]."""

from pathlib import Path

import msgspec
from safetensors.torch import load_file, save_file

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.base import read_base_weights
from serl_launcher.policies.formats.sidecar import TOKENIZER_FILE, read_tokenizer
from serl_launcher.policies.formats.stored import StoredPolicy
from serl_launcher.policies.normalization import read_norm_stats, write_norm_stats
from serl_launcher.specs import RobotSpec

CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, STATS_FILE = "config.json", "spec.json", "model.safetensors", "norm_stats.json"


def read(directory: Path) -> StoredPolicy:
    """Returns the policy in a directory; a base model may lack robot, statistics and tokenizer."""
    try:
        config = msgspec.json.decode((directory / CONFIG_FILE).read_bytes(), type=PolicyConfig)
    except (OSError, msgspec.MsgspecError) as exc:
        raise CheckpointError(f"Expected the settings of a policy at {directory / CONFIG_FILE}: {exc}.") from exc
    spec, stats = directory / SPEC_FILE, directory / STATS_FILE
    return StoredPolicy(
        config=config,
        weights=read_base_weights(directory) | load_file(directory / WEIGHTS_FILE),
        spec=msgspec.json.decode(spec.read_bytes(), type=RobotSpec) if spec.is_file() else None,
        norm_stats=read_norm_stats(stats) if stats.is_file() else {},
        tokenizer=read_tokenizer(directory),
    )


def write(stored: StoredPolicy, directory: Path, *, with_weights: bool = True) -> None:
    """Writes the policy into a directory; without its weights where they are written otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    if with_weights:
        save_file(stored.weights, directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(stored.config)))
    if stored.spec is not None:
        (directory / SPEC_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(stored.spec)))
    if stored.tokenizer is not None:
        (directory / TOKENIZER_FILE).write_bytes(stored.tokenizer)
    if stored.norm_stats:
        write_norm_stats(directory / STATS_FILE, stored.norm_stats)
