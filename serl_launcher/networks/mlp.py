"""Multilayer perceptrons, alone and as ensembles whose members share one call.

Legend: B batch, E members, D width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear layers with ReLU between, optionally with LayerNorm before it; nothing after the last."""

    def __init__(self, width: int, hidden: Sequence[int], output: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), *([nn.LayerNorm(size)] if layer_norm else []), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, output))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """Returns the last layer's output."""
        return self.layers(x)


class EnsembleLinear(nn.Module):
    """E linear layers of their own, applied in one batched product."""

    def __init__(self, members: int, width: int, output: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(members, width, output).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, output).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "E B D"]) -> Float[Tensor, "E B O"]:
        """Returns each member's output on its own input."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """LayerNorm with a scale and offset per member."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Float[Tensor, "E B D"]) -> Float[Tensor, "E B D"]:
        """Returns every row with mean 0 and variance 1, then scaled."""
        return F.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class EnsembleMlp(nn.Module):
    """E perceptrons with one output each; LayerNorm keeps their values from running away (arXiv:2302.02948)."""

    def __init__(self, members: int, width: int, hidden: Sequence[int], *, layer_norm: bool) -> None:
        super().__init__()
        self.members = members
        layers: list[nn.Module] = []
        for size in hidden:
            norm = [EnsembleNorm(members, size)] if layer_norm else []
            layers += [EnsembleLinear(members, width, size), *norm, nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers, EnsembleLinear(members, width, 1))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "E B"]:
        """Returns every member's value of every row."""
        return self.layers(x.expand(self.members, *x.shape)).squeeze(-1)
