"""The weight of an entropy or a divergence, learned so that it keeps a target."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.losses.actor_critic import temperature_loss


class Temperature(nn.Module):
    """A positive number with a loss; learned in log space."""

    def __init__(self, initial: float, target_entropy: float) -> None:
        """Keeps the mean of -log_prob at `target_entropy`; for a divergence give minus its target."""
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor([initial]).log())  # DeepSpeed takes no scalars.
        self._target_entropy = target_entropy

    @property
    def value(self) -> Float[Tensor, ""]:
        """The weight, without gradient."""
        return self.log_value.detach()[0].exp()

    def forward(self, log_prob: Float[Tensor, " B"]) -> Float[Tensor, ""]:
        """Returns the loss."""
        return temperature_loss(self.log_value[0], log_prob, self._target_entropy)
