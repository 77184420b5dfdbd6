"""Samplers of a flow policy: from noise (t = 1) to actions (t = 0) along the predicted velocity.

A sampler sees a `Flow` and nothing else, so that every sampler works with every way of computing the velocity: the
network itself, its frozen form, either of them led by a chunk under way (real-time chunking).

Legend: R rows (observations times draws), H chunk horizon, A action width, S state width.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Flow(Protocol):
    """The velocity field of a batch of observations; what depends on them alone is computed already."""

    def velocity(self, x_t: Float[Tensor, "R H A"], time: float | Tensor) -> Float[Tensor, "R H A"]:
        """Returns the predicted noise minus actions, float32.

        Args:
            x_t: Noisy actions.
            time: One number for all rows, or a tensor [R] or [R, H].
        """
        ...


class VelocityNetwork(Protocol):
    """A network that predicts velocities; the prefix is its own affair."""

    # Any: each network has its own type of prefix, which only the network reads.
    def velocity(self, prefix: Any, state: Tensor, x_t: Tensor, time: Tensor) -> Tensor:
        """Returns the velocity, float32 [R, H, A]; `time` is [R] or [R, H]."""
        ...


@dataclass(slots=True)
class NetworkFlow:
    """The flow of a network as it is, gradients included."""

    network: VelocityNetwork
    prefix: Any
    """Of every row."""
    state: Float[Tensor, "R S"]

    def velocity(self, x_t: Float[Tensor, "R H A"], time: float | Tensor) -> Float[Tensor, "R H A"]:
        """Returns the predicted noise minus actions; `time` is a number or a tensor [R] or [R, H]."""
        if not isinstance(time, Tensor):
            time = torch.full((len(x_t),), time, device=x_t.device)
        return self.network.velocity(self.prefix, self.state, x_t, time)


def flow_times(num_steps: int) -> list[float]:
    """Returns the times at which a sampler of so many equal steps asks for the velocity: 1, ..., 1 / num_steps."""
    return [1.0 - step / num_steps for step in range(num_steps)]


def sample_euler(flow: Flow, noise: Float[Tensor, "R H A"], num_steps: int) -> Float[Tensor, "R H A"]:
    """Returns actions by Euler's method: deterministic, no host synchronisation, the same shapes in every step."""
    x_t = noise
    for time in flow_times(num_steps):
        x_t = x_t - flow.velocity(x_t, time) / num_steps
    return x_t
