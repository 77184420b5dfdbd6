"""The moving average of weights that is published instead of the weights themselves.

    average <- d * average + (1 - d) * weight        after every update

d is the configured decay, smaller at first: min(decay, (1 + n) / (10 + n)) after n updates, so that the start is soon
forgotten (as in TensorFlow's moving average; openpi keeps d constant). In closed form, with d_i the decay after update
i, the average after n updates is the sum over i of (1 - d_i) * d_{i+1} ... d_n * weight_i, plus d_1 ... d_n times the
starting weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def decay_after(num_updates: int, decay: float) -> float:
    """Returns the decay in force after so many updates, counted from 1."""
    return min(decay, (1 + num_updates) / (10 + num_updates))


class WeightAverage:
    """Averages of parameters; each is a tensor of its own, in the parameter's dtype and on its device."""

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        """Starts at the present weights. A `decay` of 0 averages nothing and costs nothing."""
        self._parameters = parameters
        self._decay = decay
        self._averages: list[Tensor] = []
        self.restart()

    @property
    def is_on(self) -> bool:
        """Whether there is an average."""
        return self._decay > 0

    def restart(self) -> None:
        """Starts again at the present weights."""
        self._averages = [parameter.detach().clone() for parameter in self._parameters] if self.is_on else []

    @torch.no_grad()
    def follow(self, num_updates: int) -> None:
        """Moves towards the present weights; `num_updates` counts the one just made."""
        for average, parameter in zip(self._averages, self._parameters, strict=False):
            average.lerp_(parameter.detach(), 1.0 - decay_after(num_updates, self._decay))

    def swap(self) -> None:
        """Lets averages and weights change places; nothing is copied. Do not train while they are swapped."""
        for number, average in enumerate(self._averages):
            parameter = self._parameters[number]
            parameter.data, self._averages[number] = average, parameter.data
