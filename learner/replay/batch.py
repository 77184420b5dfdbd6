"""One training batch: observations, action chunks and returns.

Legend: B batch, C cameras, H chunk horizon, A action width, S state width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(kw_only=True, slots=True)
class Batch:
    """What one update learns from; every array is owned by the batch and may be written to.

    Example:
        A chunk of H=3 that starts at the last but one step of a terminated episode, discount 0.9:
        actions [[a8, a9, a9]], is_pad [[False, False, True]], reward [r8 + 0.9 * r9], discount [0.0],
        is_terminal [True].
    """

    images: np.ndarray
    """uint8 [B, C, height, width, 3], RGB, cameras in the order the sampler was given."""
    state: np.ndarray
    """float32 [B, S]."""
    prompts: list[str]
    """Instruction in force at the chunk's first tick, one per sample."""
    actions: np.ndarray
    """float32 [B, H, A], executed actions in robot units; padding repeats the episode's last action."""
    is_pad: np.ndarray
    """bool [B, H]; True where the episode is already over."""
    reward: np.ndarray
    """float32 [B]; discounted sum of the rewards inside the chunk."""
    discount: np.ndarray
    """float32 [B]; gamma ** (steps in the chunk); 0 only where the episode terminated inside the chunk."""
    is_terminal: np.ndarray
    """bool [B]; whether the episode terminated (not: was truncated) inside the chunk."""
    return_to_go: np.ndarray | None = None
    """float32 [B]; discounted sum of rewards from the chunk's first step to the episode's end; None unless known."""
    is_successful: np.ndarray | None = None
    """bool [B]; whether the sample's episode succeeded or is an unlabelled demonstration; None unless asked for."""
    next_images: np.ndarray | None = None
    """uint8 [B, C, height, width, 3] after the chunk's last real step; None unless the sampler was asked for it."""
    next_state: np.ndarray | None = None
    """float32 [B, S] after the chunk's last real step; None unless the sampler was asked for it."""

    def __len__(self) -> int:
        """Returns the number of samples, B."""
        return len(self.prompts)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Returns one batch of all samples in order; raises ValueError on an empty sequence or on unlike shapes."""
    if len(batches) == 1:
        return batches[0]

    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in batches])

    has_next = all(batch.next_state is not None for batch in batches)
    has_return = all(batch.return_to_go is not None for batch in batches)
    return Batch(
        images=join("images"),
        state=join("state"),
        prompts=[prompt for batch in batches for prompt in batch.prompts],
        actions=join("actions"),
        is_pad=join("is_pad"),
        reward=join("reward"),
        discount=join("discount"),
        is_terminal=join("is_terminal"),
        return_to_go=join("return_to_go") if has_return else None,
        is_successful=join("is_successful") if all(batch.is_successful is not None for batch in batches) else None,
        next_images=join("next_images") if has_next else None,
        next_state=join("next_state") if has_next else None,
    )
