"""The processors of a LeRobot policy (0.4.4): its normalisation statistics, its prompt and its tokenizer.

LeRobot divides by std (+ eps) and by q99 - q01, openpi by std + 1e-6 and by q99 - q01 + 1e-6. The 1e-6 moves into the
numbers on the way (and out again on the way back), so that both sides compute the same.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.fast_tokenizer import is_like_paligemma, write_fast_tokenizer
from serl_launcher.policies.formats.sidecar import TOKENIZER_FILE
from serl_launcher.policies.formats.sidecar import read_tokenizer as read_tokenizer_file
from serl_launcher.policies.formats.stored import StoredPolicy
from serl_launcher.policies.normalization import EPSILON, NormStats

logger = logging.getLogger(__name__)

STATE, ACTION, IMAGE_PREFIX = "observation.state", "action", "observation.images."
KINDS = {"MEAN_STD": "zscore", "QUANTILES": "quantile"}
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
STATE_PROMPT_STEP, TOKENIZER_STEP = "pi05_prepare_state_tokenizer_processor_step", "tokenizer_processor"
NORMALIZER_STEP, UNNORMALIZER_STEP = "normalizer_processor", "unnormalizer_processor"
PALIGEMMA, PALIGEMMA_VOCAB = "google/paligemma-3b-pt-224", 257152
TOKENIZER_FOLDER = "tokenizer"
DEFAULT_PADDING = 32
"""States in the prompt, of a step that does not say."""


@dataclass(kw_only=True, slots=True)
class Features:
    """Inputs and outputs by LeRobot's names, as its files describe them."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]


def modes(kind: str) -> dict[str, str]:
    """Returns LeRobot's normalisation of images, states and actions."""
    mode = next(mode for mode, ours in KINDS.items() if ours == kind)
    return {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}


def read_stats(directory: Path) -> dict[str, NormStats]:
    """Returns the statistics of `state` and `actions` that a directory's processors hold, as openpi would use them.

    Raises:
        CheckpointError: A file that a processor names is missing.
    """
    stats: dict[str, NormStats] = {}
    steps = ((PREPROCESSOR, NORMALIZER_STEP, STATE, "state"), (POSTPROCESSOR, UNNORMALIZER_STEP, ACTION, "actions"))
    for pipeline, step_name, feature, key in steps:
        for step in _steps(directory, pipeline, step_name):
            found = _feature_stats(directory, step, feature)
            if found is not None:
                # Only the way in adds eps to the deviation.
                eps = step.get("config", {}).get("eps", 1e-8) if key == "state" else 0.0
                stats[key] = _without_epsilon(found, eps)
    return stats


def state_in_prompt(directory: Path, state_width: int | None) -> str:
    """Returns `padded` where π0.5's prompt holds more integers than the robot has states, else `unpadded`."""
    for step in _steps(directory, PREPROCESSOR, STATE_PROMPT_STEP):
        width = step.get("config", {}).get("max_state_dim", DEFAULT_PADDING)
        if state_width is not None and width > state_width:
            return "padded"
    return "unpadded"


def read_tokenizer(directory: Path) -> bytes | None:
    """Returns the SentencePiece model that lies in a directory, if any."""
    return read_tokenizer_file(directory / TOKENIZER_FOLDER) or read_tokenizer_file(directory)


def write_processors(stored: StoredPolicy, features: Features, directory: Path) -> None:
    """Writes both pipelines with their statistics, and the tokenizer."""
    tokenizer = _write_tokenizer(stored, directory)
    norm_map = modes(stored.config.normalization)
    stats = {
        f"{name}.{statistic}": tensor
        for name, key in ((STATE, "state"), (ACTION, "actions"))
        for statistic, tensor in _with_epsilon(stored.norm_stats[key]).items()
    }
    normalizer = _step(NORMALIZER_STEP, eps=0.0, features={**features.inputs, **features.outputs}, norm_map=norm_map)
    unnormalizer = _step(UNNORMALIZER_STEP, eps=0.0, features=features.outputs, norm_map=norm_map)
    tokenize = _step(
        TOKENIZER_STEP, max_length=stored.config.max_token_len, task_key="task", padding_side="right",
        padding="max_length", truncation=True, tokenizer_name=tokenizer,
    )  # fmt: skip
    device = _step("device_processor", device="cpu", float_dtype=None)
    start = [_step("rename_observations_processor", rename_map={}), _step("to_batch_processor")]
    if stored.config.name == "pi0":
        steps = [*start, _step("pi0_new_line_processor"), tokenize, device, normalizer]
    else:
        steps = [*start, normalizer, _state_prompt_step(stored), tokenize, device]
    _write_pipeline(directory, PREPROCESSOR, steps, stats)
    _write_pipeline(directory, POSTPROCESSOR, [unnormalizer, device], stats)


def _state_prompt_step(stored: StoredPolicy) -> dict[str, Any]:
    assert stored.spec is not None
    is_padded = stored.config.state_in_prompt == "padded"
    return _step(STATE_PROMPT_STEP, max_state_dim=stored.config.max_state_dim if is_padded else stored.spec.state_dim)


def _step(name: str, **config: object) -> dict[str, Any]:
    return {"registry_name": name, "config": config}


def _write_pipeline(directory: Path, name: str, steps: list[dict[str, Any]], stats: dict[str, torch.Tensor]) -> None:
    written = []
    for number, step in enumerate(steps):
        if step["registry_name"] not in (NORMALIZER_STEP, UNNORMALIZER_STEP):
            written.append(step)
            continue
        file = f"{name}_step_{number}_{step['registry_name']}.safetensors"
        save_file(stats, directory / file)
        written.append({**step, "state_file": file})
    (directory / f"{name}.json").write_text(json.dumps({"name": name, "steps": written}, indent=2))


def _write_tokenizer(stored: StoredPolicy, directory: Path) -> str:
    """Writes the tokenizer, and what LeRobot's AutoTokenizer reads; returns the name to ask it for."""
    if stored.tokenizer is None:
        return PALIGEMMA
    folder = (directory / TOKENIZER_FOLDER).resolve()
    folder.mkdir(exist_ok=True)
    (folder / TOKENIZER_FILE).write_bytes(stored.tokenizer)
    processor = sentencepiece.SentencePieceProcessor(model_proto=stored.tokenizer)
    if processor.vocab_size() == PALIGEMMA_VOCAB:
        return PALIGEMMA
    if is_like_paligemma(processor):
        write_fast_tokenizer(processor, folder)
    else:
        logger.warning("%s is not built like PaliGemma's tokenizer; LeRobot needs another one for it.", folder)
    return str(folder)


def _steps(directory: Path, pipeline: str, name: str) -> Iterator[dict[str, Any]]:
    path = directory / f"{pipeline}.json"
    if path.is_file():
        yield from (step for step in json.loads(path.read_text())["steps"] if step.get("registry_name") == name)


def _feature_stats(directory: Path, step: dict[str, Any], feature: str) -> NormStats | None:
    if "state_file" not in step:
        return None
    path = directory / step["state_file"]
    if not path.is_file():
        raise CheckpointError(f"Expected the statistics of {step['registry_name']} at {path}. Copy all files.")
    tensors = load_file(path)
    values = {name: tensors.get(f"{feature}.{name}") for name in ("mean", "std", "q01", "q99")}
    if values["mean"] is None or values["std"] is None:
        return None
    return NormStats(**{name: tensor.double().tolist() for name, tensor in values.items() if tensor is not None})


def _without_epsilon(stats: NormStats, eps: float) -> NormStats:
    """Returns LeRobot's statistics so that openpi's formulas give LeRobot's results; spreads stay above zero."""
    q99 = None
    if stats.q01 is not None and stats.q99 is not None:
        q99 = [low + max(high - low - EPSILON, 0.0) for low, high in zip(stats.q01, stats.q99, strict=True)]
    return msgspec.structs.replace(stats, std=[max(std + eps - EPSILON, 0.0) for std in stats.std], q99=q99)


def _with_epsilon(stats: NormStats) -> dict[str, torch.Tensor]:
    """Returns openpi's statistics so that LeRobot's formulas give openpi's results, float64."""
    values = {"mean": stats.mean, "std": [std + EPSILON for std in stats.std]}
    if stats.q01 is not None and stats.q99 is not None:
        values |= {"q01": stats.q01, "q99": [high + EPSILON for high in stats.q99]}
    return {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in values.items()}
