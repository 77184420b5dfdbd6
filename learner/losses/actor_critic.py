"""Losses of maximum-entropy actor-critic learning.

Haarnoja et al. 2018 (arXiv:1812.05905); critic ensembles as in REDQ (arXiv:2101.05982) and RLPD (arXiv:2302.02948).
Legend: B batch, E critics, K critics of a subset.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pessimistic(q: Float[Tensor, "E B"], subset: Int[Tensor, " K"] | None = None) -> Float[Tensor, " B"]:
    """Returns the smallest value among the critics, or among a random subset of them (REDQ)."""
    chosen = q if subset is None else q[subset]
    return chosen.min(dim=0).values


def td_target(
    reward: Float[Tensor, " B"], discount: Float[Tensor, " B"], next_value: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Returns reward + discount * next_value.

    Args:
        reward: Sum of discounted rewards inside the executed chunk.
        discount: gamma ** (steps executed); 0 where the episode terminated, never where it was truncated.
        next_value: What the next observation is worth, `soft_value` or the pessimistic critic.
    """
    return reward + discount * next_value


def soft_value(
    q: Float[Tensor, " B"], log_prob: Float[Tensor, " B"], temperature: Float[Tensor, ""]
) -> Float[Tensor, " B"]:
    """Returns Q(s, a) - temperature * log pi(a | s), for a drawn from pi."""
    return q - temperature * log_prob


def critic_loss(q: Float[Tensor, "E B"], target: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Returns the mean squared Bellman error, summed over the critics: each learns as if it were alone."""
    return (q - target.detach()).square().mean(dim=1).sum()


def policy_loss(
    q: Float[Tensor, " B"], log_prob: Float[Tensor, " B"], temperature: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Returns E[temperature * log pi - Q]; its gradient reaches the policy through q and log_prob."""
    return (temperature.detach() * log_prob - q).mean()


def temperature_loss(
    log_temperature: Float[Tensor, ""], log_prob: Float[Tensor, " B"], target_entropy: float
) -> Float[Tensor, ""]:
    """Returns the loss that raises the temperature while the policy's entropy is below its target.

    In log space, as common implementations have it: the step does not shrink with the temperature.
    """
    return -(log_temperature * (log_prob.detach() + target_entropy)).mean()


def polyak_(target: list[Tensor], online: list[Tensor], rate: float) -> None:
    """Moves target tensors towards the online ones by `rate`, in place."""
    with torch.no_grad():
        torch._foreach_lerp_(target, online, rate)  # pyright: ignore[reportPrivateImportUsage]
