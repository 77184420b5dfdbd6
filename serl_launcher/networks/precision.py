"""Which parameters stay in float32 when a π0 or π0.5 is held in bfloat16 (the list of the published checkpoints)."""

import torch
from torch import Tensor, nn

_FLOAT32_PARTS = (
    "vision_model.embeddings.",
    ".input_layernorm.",
    ".post_attention_layernorm.",
    ".language_model.norm.",
    ".gemma_expert.model.norm.",
    ".lora_",
)
_BACKBONE = "paligemma_with_expert."


def parameter_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Returns the type a parameter is held in: `dtype`; float32 for patch embeddings, Gemma's norms and the heads."""
    is_kept = not name.startswith(_BACKBONE) or any(part in name for part in _FLOAT32_PARTS)
    return torch.float32 if is_kept else dtype


def uncast(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Returns a layer's output in the type of its own weights, also where autocast computes others in bfloat16."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


def cast_(network: nn.Module, dtype: torch.dtype) -> None:
    """Casts the parameters of a π0 or π0.5 network in place, but for those that stay in float32."""
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(parameter_dtype(name, dtype))
