"""The processors that a trainer runs on: devices, precision, ranks, DeepSpeed."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedDataParallelKwargs

from learner.trainer.ranks import Ranks
from serl_launcher.config import RunConfig
from serl_launcher.errors import ConfigError


def build_hardware(config: RunConfig) -> tuple[Ranks, Accelerator]:
    """Returns the ranks of this job and the accelerator, after joining the group that torchrun's variables name.

    Raises:
        ConfigError: There is no GPU, or the settings contradict each other or the number of processes.
    """
    training = config.training
    if training.num_gpus > 0 and not torch.cuda.is_available():
        raise ConfigError(f"training.num_gpus is {training.num_gpus}, but torch finds no GPU. Use training.num_gpus=0.")
    plugin = _deepspeed(config) if training.deepspeed_config is not None else None
    # The last layer of the language stream has weights whose output is not used: they get no gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        # With cpu=True accelerate would quietly leave DeepSpeed out.
        cpu=training.num_gpus == 0 and plugin is None,
        # DeepSpeed's engine has an autocast of its own.
        mixed_precision=training.mixed_precision if plugin is None else "no",
        kwargs_handlers=[unused],
        deepspeed_plugin=plugin,
        # Micro-batches are ours to count, except in DeepSpeed's own bookkeeping.
        gradient_accumulation_steps=1 if plugin is None else training.gradient_accumulation_steps,
    )
    ranks = Ranks(accelerator.device)
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks.count != expected:
        raise ConfigError(f"WORLD_SIZE is {expected}, but {ranks.count} processes found each other.")
    _check_batch(config, ranks.count)
    return ranks, accelerator


def _deepspeed(config: RunConfig) -> DeepSpeedPlugin:
    """Returns the plugin for `training.deepspeed_config`, with every `auto` filled in."""
    training = config.training
    path = Path(training.deepspeed_config or "")
    if not path.is_file():
        raise ConfigError(f"training.deepspeed_config: expected a JSON file at {path.absolute()}, found none.")
    settings = json.loads(path.read_text())
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2):
        raise ConfigError(
            f"training.deepspeed_config: expected ZeRO stage 0, 1 or 2 in {path}, got {stage!r}. Every rank holds the "
            "whole policy, because it is published from there."
        )
    _set_precision_(settings, training.mixed_precision)
    if training.num_gpus == 0:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    _check_batch(config, num_ranks)
    settings["train_batch_size"] = config.algo.batch_size
    settings["train_micro_batch_size_per_gpu"] = (
        config.algo.batch_size // num_ranks // training.gradient_accumulation_steps
    )
    settings["gradient_accumulation_steps"] = training.gradient_accumulation_steps
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    return DeepSpeedPlugin(hf_ds_config=settings)


def _set_precision_(settings: dict[str, Any], mixed_precision: str) -> None:
    """Makes DeepSpeed compute as accelerate does: weights, gradients and optimizer in float32, matrices in bfloat16.

    Its own `bf16` would hold the weights in bfloat16, those of the published float32 list included.
    """
    if mixed_precision == "fp16":
        raise ConfigError(
            "training.deepspeed_config works with mixed_precision=bf16 or no, got 'fp16'. Use bf16, or leave "
            "deepspeed_config out."
        )
    for key in ("bf16", "fp16"):
        settings[key] = {"enabled": False}
    if mixed_precision == "bf16":
        # No module is named whose gradients may be summed over ranks in bfloat16.
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}


def _check_batch(config: RunConfig, num_ranks: int) -> None:
    parts = num_ranks * config.training.gradient_accumulation_steps
    if config.algo.batch_size % parts:
        raise ConfigError(
            f"algo.batch_size ({config.algo.batch_size}) must be a multiple of ranks x gradient_accumulation_steps "
            f"({num_ranks} x {config.training.gradient_accumulation_steps})."
        )
