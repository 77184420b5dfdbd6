"""The moving average of weights that is published instead of the weights themselves.

    average <- d * average + (1 - d) * weight        after every update

d is the configured decay, smaller at first: min(decay, (1 + n) / (10 + n)) after n updates, so that the start is soon
forgotten (as in TensorFlow's moving average; openpi keeps d constant). In closed form, with d_i the decay after update
i, the average after n updates is the sum over i of (1 - d_i) * d_{i+1} ... d_n * weight_i, plus d_1 ... d_n times the
starting weight.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def decay_after(num_updates: int, decay: float) -> float:
    """Returns the decay in force after so many updates, counted from 1."""
    return min(decay, (1 + num_updates) / (10 + num_updates))


class WeightAverage:
    """Averages of parameters; each is a tensor of its own, in float32 and on the parameter's device.

    In bfloat16 a step of 1 % is mostly less than half of the last digit: such an average would stand still.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        """Starts at the present weights. A `decay` of 0 averages nothing and costs nothing."""
        self._parameters = parameters
        self._decay = decay
        self._averages: list[Tensor] = []
        self._weights: list[Tensor] = []
        """The parameters' own, while the averages are in their place."""
        self.restart()

    @property
    def is_on(self) -> bool:
        """Whether there is an average."""
        return self._decay > 0

    def restart(self, averages: Mapping[int, Tensor] | None = None) -> None:
        """Starts again at the present weights, or for the parameters named at `averages`."""
        if self.is_on:
            starts = ((averages or {}).get(number, each) for number, each in enumerate(self._parameters))
            self._averages = [
                start.detach().to(parameter.device, torch.float32, copy=True)
                for start, parameter in zip(starts, self._parameters, strict=True)
            ]

    def unrounded(self) -> dict[int, Tensor]:
        """Returns the averages by their parameter's number, of those parameters that cannot hold them exactly."""
        return {
            number: average
            for number, average in enumerate(self._averages)
            if self._parameters[number].dtype != average.dtype
        }

    @torch.no_grad()
    def follow(self, num_updates: int) -> None:
        """Moves towards the present weights; `num_updates` counts the one just made."""
        for average, parameter in zip(self._averages, self._parameters, strict=False):
            average.lerp_(parameter.detach().to(average.dtype), 1.0 - decay_after(num_updates, self._decay))

    def swap(self) -> None:
        """Puts the averages in the weights' place, and the other way round; do not train while they are there.

        Nothing is copied, but averages that are rounded to their parameter's dtype.
        """
        if self._weights:
            places, self._weights = self._weights, []
        else:
            places = [average.to(self._parameters[number].dtype) for number, average in enumerate(self._averages)]
            self._weights = [parameter.data for parameter in self._parameters] if self.is_on else []
        for parameter, place in zip(self._parameters, places, strict=False):
            parameter.data = place
