"""LeRobot's layout (0.4.4); nothing of LeRobot is imported.

config.json  model.safetensors  policy_preprocessor.json  policy_postprocessor.json  policy_*_normalizer_*.safetensors
"""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats import lerobot_processors as processors
from serl_launcher.policies.formats.lerobot_processors import IMAGE_PREFIX, KINDS, STATE, Features
from serl_launcher.policies.formats.names import LEROBOT_PREFIX, from_published, to_published, without_prefix
from serl_launcher.policies.formats.openpi import precision
from serl_launcher.policies.formats.sidecar import read_sidecar, write_sidecar
from serl_launcher.policies.formats.sizes import infer_config, model_name
from serl_launcher.policies.formats.stored import StoredPolicy
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_VARIANTS = {"paligemma_variant": "gemma_2b", "action_expert_variant": "gemma_300m"}


def is_type_of(directory: Path) -> bool:
    """Whether a directory has LeRobot's settings of a π0 or π0.5."""
    try:
        return _read_config(directory / CONFIG_FILE).get("type") in ("pi0", "pi05")
    except CheckpointError:
        return False


def read(directory: Path) -> StoredPolicy:
    """Returns the policy of a directory.

    Raises:
        CheckpointError: Its type is not that of its tensors, or it normalises as no π0 does.
    """
    weights = from_published(without_prefix(load_file(directory / WEIGHTS_FILE), LEROBOT_PREFIX))
    theirs = _read_config(directory / CONFIG_FILE)
    if theirs.get("type") != model_name(weights):
        raise CheckpointError(
            f"{directory / CONFIG_FILE} says {theirs.get('type')!r}, the tensors are those of {model_name(weights)!r}."
        )
    sidecar = read_sidecar(directory)
    config = _inferred(weights, theirs) if sidecar is None else sidecar.policy
    stats = processors.read_stats(directory)
    state_width = len(stats["state"].mean) if "state" in stats else _feature_width(theirs, STATE)
    return StoredPolicy(
        config=_with_their_settings(config, theirs, processors.state_in_prompt(directory, state_width)),
        weights=weights,
        spec=None if sidecar is None else sidecar.robot,
        norm_stats=stats,
        tokenizer=processors.read_tokenizer(directory),
    )


def write(stored: StoredPolicy, directory: Path) -> None:
    """Writes the policy so that `PI0Policy.from_pretrained` or `PI05Policy.from_pretrained` loads it strictly.

    Raises:
        CheckpointError: It lacks a robot or statistics, or does what LeRobot 0.4.4 cannot.
    """
    if stored.spec is None or not stored.norm_stats:
        raise CheckpointError(
            "LeRobot's layout names cameras, widths and statistics; this policy is for no robot yet. Give the robot "
            "(--robot spec.json) and statistics (--norm-stats norm_stats.json), or write openpi's layout."
        )
    _refuse_what_lerobot_lacks(stored.config)
    _warn_of_other_inputs(stored.config, stored.spec)
    directory.mkdir(parents=True, exist_ok=True)
    named = to_published(stored.weights, both_names=True)
    save_file({f"{LEROBOT_PREFIX}{name}": tensor for name, tensor in named.items()}, directory / WEIGHTS_FILE)
    features = _features(stored)
    (directory / CONFIG_FILE).write_text(json.dumps(_config(stored, features), indent=4))
    processors.write_processors(stored, features, directory)
    write_sidecar(stored, directory)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as exc:
        raise CheckpointError(f"Expected LeRobot's settings of a policy at {path}: {exc}.") from exc


def _inferred(weights: dict[str, Tensor], theirs: dict[str, Any]) -> PolicyConfig:
    """Returns the sizes of the tensors, with the cameras of LeRobot's file and what LeRobot does in its own way."""
    images = [
        name.removeprefix(IMAGE_PREFIX)
        for name, feature in theirs.get("input_features", {}).items()
        if feature.get("type") == "VISUAL"
    ]
    return dataclasses.replace(
        infer_config(weights), image_keys=images, image_resize="lerobot", prompt_cleaning="lerobot", loss_dims="robot"
    )


def _feature_width(theirs: dict[str, Any], name: str) -> int | None:
    shape = theirs.get("input_features", {}).get(name, {}).get("shape")
    return None if shape is None else shape[0]


def _with_their_settings(config: PolicyConfig, theirs: dict[str, Any], state_in_prompt: str) -> PolicyConfig:
    """Returns the settings with what LeRobot's file says about the same things."""
    modes = theirs.get("normalization_mapping", {})
    kinds = {KINDS.get(modes.get(what, ""), modes.get(what)) for what in ("STATE", "ACTION")}
    if modes and (len(kinds) > 1 or not kinds <= set(KINDS.values())):
        raise CheckpointError(
            f"Expected states and actions to be normalised alike, by one of {list(KINDS)}; the policy has {modes}."
        )
    return dataclasses.replace(
        config,
        horizon=theirs.get("chunk_size", config.horizon),
        num_steps=theirs.get("num_inference_steps", config.num_steps),
        max_state_dim=theirs.get("max_state_dim", config.max_state_dim),
        max_token_len=theirs.get("tokenizer_max_length", config.max_token_len),
        normalization=next(iter(kinds)) if modes else config.normalization,
        state_in_prompt=state_in_prompt,
    )


def _refuse_what_lerobot_lacks(config: PolicyConfig) -> None:
    if config.delta_actions:
        raise CheckpointError(
            "LeRobot 0.4.4 has no actions relative to the state, and would send this policy's to the robot as they "
            "are. Train with policy.delta_actions=false, or write openpi's layout."
        )
    if config.name == "pi05" and config.state_in_prompt == "none":
        raise CheckpointError(
            "LeRobot 0.4.4 always writes the state into π0.5's prompt; this policy was trained without "
            "(policy.state_in_prompt=none). Write openpi's layout."
        )


def _warn_of_other_inputs(config: PolicyConfig, spec: RobotSpec) -> None:
    """Says what LeRobot feeds a network otherwise than this policy was trained with."""
    size = config.vision.image_size
    resized = [camera.name for camera in spec.cameras if (camera.height, camera.width) != (size, size)]
    if resized and config.image_resize == "openpi":
        logger.warning(
            "LeRobot resizes images of %s to %d x %d without antialiasing, and with another border where they are not "
            "square; this policy was trained with policy.image_resize=openpi and may act worse there.",
            ", ".join(resized), size, size,
        )  # fmt: skip
    if config.name == "pi0" and config.prompt_cleaning == "openpi":
        logger.warning(
            "LeRobot leaves π0's prompts as they are: give it prompts without underscores, line breaks, and spaces at "
            "their ends, which this policy was trained without."
        )


def _features(stored: StoredPolicy) -> Features:
    spec = stored.spec
    assert spec is not None
    names = stored.config.image_keys or list(spec.camera_names)
    seen = [spec.camera(name) for name in names if name in spec.camera_names]
    images = {
        f"{IMAGE_PREFIX}{camera.name}": {"type": "VISUAL", "shape": [3, camera.height, camera.width]} for camera in seen
    }
    return Features(
        inputs={**images, STATE: {"type": "STATE", "shape": [spec.state_dim]}},
        outputs={"action": {"type": "ACTION", "shape": [spec.action_dim]}},
    )


def _config(stored: StoredPolicy, features: Features) -> dict[str, Any]:
    config = stored.config
    if (config.language, config.expert) != (PolicyConfig().language, PolicyConfig().expert):
        logger.warning("LeRobot knows only the published sizes; stock LeRobot cannot load this smaller policy.")
    return {
        "type": config.name,
        "n_obs_steps": 1,
        "input_features": features.inputs,
        "output_features": features.outputs,
        "push_to_hub": False,
        **_VARIANTS,
        "dtype": precision(stored),
        "chunk_size": config.horizon,
        "n_action_steps": config.horizon,
        "max_state_dim": config.max_state_dim,
        "max_action_dim": config.max_action_dim,
        "num_inference_steps": config.num_steps,
        "image_resolution": [config.vision.image_size] * 2,
        "tokenizer_max_length": config.max_token_len,
        "normalization_mapping": processors.modes(config.normalization),
    }
