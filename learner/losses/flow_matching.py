"""Reduction of the flow-matching loss. Legend: B batch, K noise draws, H chunk horizon, A action width."""

from torch import Tensor


def flow_matching_loss(squared_error: Tensor, is_pad: Tensor) -> Tensor:
    """Mean squared velocity error, where steps behind an episode's end count as zero.

    Lipman et al. 2022 (arXiv:2210.02747) with the straight path of pi0 (arXiv:2410.24164). Every real step weighs the
    same, whichever chunk it is in, and the denominator is a constant: the mean over micro-batches is the batch's.

    Args:
        squared_error: [B, K, H, A], (predicted velocity - (noise - action)) ** 2.
        is_pad: bool [B, H], True where the episode is already over.

    Returns:
        A scalar.
    """
    is_real = (~is_pad).to(squared_error.dtype)[:, None, :, None]
    return (squared_error * is_real).mean()
