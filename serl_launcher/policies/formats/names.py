"""Where the names of published PyTorch checkpoints differ from ours: one tied and one dead tensor, and a prefix."""

from collections.abc import Mapping

import torch
from torch import Tensor

from serl_launcher.errors import CheckpointError

EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
TIED_HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
"""The token embedding's other name; a published file has either or both."""
DEAD_HEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"
"""[vocabulary, expert width]; nothing reads it."""
LEROBOT_PREFIX = "model."


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors by our names; `tensors` have openpi's PyTorch names.

    Raises:
        CheckpointError: Both names of the token embedding are there and hold different numbers.
    """
    ours = {name: tensor for name, tensor in tensors.items() if name not in (TIED_HEAD, DEAD_HEAD)}
    head = tensors.get(TIED_HEAD)
    if head is not None and EMBEDDING in ours and not torch.equal(ours[EMBEDDING], head):
        raise CheckpointError(f"{EMBEDDING} and {TIED_HEAD} are one tensor in the model, but differ in the file.")
    if head is not None:
        ours[EMBEDDING] = head
    return ours


def to_published(weights: Mapping[str, Tensor], *, both_names: bool) -> dict[str, Tensor]:
    """Returns the tensors by openpi's PyTorch names, with the dead head as zeros, for strict loaders want it.

    Args:
        weights: By our names.
        both_names: Whether the token embedding is written under each of its names: LeRobot's strict load wants both,
            openpi's refuses the second.
    """
    theirs = {name: tensor for name, tensor in weights.items() if both_names or name != EMBEDDING}
    embedding, width = weights[EMBEDDING], weights["action_in_proj.bias"].shape[0]
    theirs[TIED_HEAD] = embedding.clone() if both_names else embedding
    theirs[DEAD_HEAD] = torch.zeros(embedding.shape[0], width, dtype=embedding.dtype)
    return theirs


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors with a prefix cut off where they have it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
