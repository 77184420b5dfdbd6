"""Losses that keep a policy near what it knows. Legend: B batch, H chunk horizon, A action width."""

from jaxtyping import Bool, Float
from torch import Tensor


def distillation_loss(
    actions: Float[Tensor, "B H A"], reference: Float[Tensor, "B H A"], is_pad: Bool[Tensor, "B H"] | None = None
) -> Float[Tensor, ""]:
    """Returns the mean squared distance to the actions of a frozen reference policy for the same observation and noise.

    Departure from Hi-ORS, which compares samples of independent noise: there even an unchanged policy is pulled towards
    its own mean.
    """
    error = (actions - reference.detach()).square()
    return error.mean() if is_pad is None else (error * ~is_pad[..., None]).mean()


def behaviour_regularized_loss(
    q: Float[Tensor, " B"], distance: Float[Tensor, ""], weight: float, *, scale: float = 1.0
) -> Float[Tensor, ""]:
    """Returns weight * distance - E[Q] / scale: a behaviour-regularised actor (arXiv:1911.11361), no entropy."""
    return weight * distance - q.mean() / scale
