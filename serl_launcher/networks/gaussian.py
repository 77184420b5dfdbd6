"""A tanh-squashed Gaussian over actions. Legend: B batch, D width, A action width."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from serl_launcher.networks.mlp import Mlp

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class TanhGaussian(nn.Module):
    """Mean and deviation from features; actions in (-1, 1) with their exact log density."""

    def __init__(self, width: int, hidden: Sequence[int], action_dim: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.net = Mlp(width, hidden, 2 * action_dim, layer_norm=layer_norm)

    def forward(
        self, features: Float[Tensor, "B D"], noise: Float[Tensor, "B A"]
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """Returns actions and their log density; `noise` is standard normal, zeros give the most likely action's."""
        mean, log_std = self.net(features).chunk(2, dim=-1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        raw = mean + log_std.exp() * noise
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(raw), (normal - log_tanh_slope(raw)).sum(dim=-1)

    def mode(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B A"]:
        """Returns tanh of the mean."""
        return torch.tanh(self.net(features).chunk(2, dim=-1)[0])


def log_tanh_slope(raw: Tensor) -> Tensor:
    """Returns log(1 - tanh(raw) ** 2) without cancellation."""
    return 2 * (math.log(2.0) - raw - F.softplus(-2 * raw))
