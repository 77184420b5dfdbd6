"""Which weights of a network train, and what its layers keep for the backward pass."""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from serl_launcher.config.tuning import TuningConfig
from serl_launcher.errors import ConfigError
from serl_launcher.networks.lora import apply_lora_, lora_layers, merge_

VISION, BACKBONE, EXPERT = "vision_tower", "paligemma", "gemma_expert"


def tune_(network: nn.Module, config: TuningConfig) -> None:
    """Makes a network train as configured: factors, frozen parts, recomputed layers. Call once, before optimizers.

    Raises:
        ConfigError: The network lacks a part that the configuration speaks of, or has factors already.
    """
    if config.lora.is_on:
        if any(lora_layers(network)):
            raise ConfigError("The network has LoRA factors already; merge them before adding others.")
        apply_lora_(network, config.lora)
    if config.freeze_vision:
        _part(network, VISION, "freeze_vision").requires_grad_(requires_grad=False)
    if config.expert_only:
        _part(network, EXPERT, "expert_only")
        _part(network, BACKBONE, "expert_only").requires_grad_(requires_grad=False)
    if config.gradient_checkpointing:
        recompute_layers_(network)


def retune_(network: nn.Module, config: TuningConfig) -> None:
    """Undoes `tune_` (factors are merged into their weights) and makes the network train as `config` says."""
    merge_(network)
    network.requires_grad_(requires_grad=True)
    for module in network.modules():
        vars(module).pop("forward", None)
    tune_(network, config)


def recompute_layers_(network: nn.Module) -> None:
    """Makes every layer of every stack compute its activations again in the backward pass, while it trains.

    Raises:
        ConfigError: The network has no `layers`.
    """
    layers = [
        layer
        for name, module in network.named_modules()
        if name.endswith("layers") and isinstance(module, nn.ModuleList)
        for layer in module
    ]
    if not layers:
        raise ConfigError(
            f"policy.tuning.gradient_checkpointing recomputes layers, {type(network).__name__} has no `layers`. "
            "Turn it off."
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer)


def trainable_fraction(network: nn.Module) -> float:
    """Returns the share of parameters that train, in [0, 1]."""
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(size for size, trains in counts if trains) / max(sum(size for size, _ in counts), 1)


# Any: layers differ in what they take.
def _recomputed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(layer).forward, layer)
    if not (layer.training and torch.is_grad_enabled()):
        return run(*args, **kwargs)
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _part(network: nn.Module, name: str, setting: str) -> nn.Module:
    found = next((module for path, module in network.named_modules() if path.split(".")[-1] == name), None)
    if found is None:
        raise ConfigError(
            f"policy.tuning.{setting} needs a part called {name!r}, which {type(network).__name__} does not have. "
            "Turn it off."
        )
    return found
