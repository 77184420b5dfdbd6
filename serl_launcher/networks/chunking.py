"""Real-time chunking: a new chunk that continues the one under way.

While the policy thinks, the robot executes: of the new chunk the first `delay` actions are the old chunk's. Two ways
to respect that, both flows around a flow, so that any sampler runs on them:

- `GuidedFlow` (arXiv:2506.07339) leads any policy: each step adds the pull of a weighted error between the old actions
  and the chunk that the velocity points to, through the model's Jacobian.
- `ConditionedFlow` (arXiv:2512.05964) is for policies trained with `policy.tuning.max_delay`: the first actions are
  given, clean, at time 0.

Time runs as in openpi: 1 is noise, 0 is data.

Legend: R rows, H chunk horizon, A action width.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from serl_launcher.errors import ConfigError
from serl_launcher.networks.sampling import Flow

SCHEDULES = ("exponential", "linear", "ones", "zeros")
DEFAULT_MAX_GUIDANCE = 10.0
"""LeRobot's; the paper uses 5."""


@dataclass(kw_only=True, slots=True)
class ChunkUnderWay:
    """Old actions from the tick at which the new chunk begins, as the network sees actions."""

    actions: Float[Tensor, "R H A"]
    """Normalised; whatever stands after `length` does not count."""
    delay: Int[Tensor, " R"]
    """Ticks until the new chunk can take over: so many first actions are executed in any case."""
    length: Int[Tensor, " R"]
    """Actions of the old chunk that are left."""


def prefix_weights(
    horizon: int, delay: Int[Tensor, " R"], end: Int[Tensor, " R"], schedule: str = "exponential"
) -> Float[Tensor, "R H"]:
    """Returns how much each action of a new chunk should be the old one: 1 before `delay`, 0 from `end` on.

    In between it falls along c = (end - i) / (end - delay + 1): `linear` is c, `exponential` is
    c (e^c - 1) / (e - 1), `ones` stays 1 and `zeros` drops to 0 at once.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"The schedule of real-time chunking is one of {list(SCHEDULES)}, got {schedule!r}.")
    index = torch.arange(horizon, device=delay.device)
    begin, end = delay.minimum(end)[:, None], end[:, None]
    fraction = ((end - index) / (end - begin + 1)).clamp(0.0, 1.0)
    between = {
        "exponential": fraction * torch.expm1(fraction) / (math.e - 1.0),
        "linear": fraction,
        "ones": torch.ones_like(fraction),
        "zeros": torch.zeros_like(fraction),
    }[schedule]
    return torch.where(index < begin, 1.0, torch.where(index < end, between, 0.0))


def guidance_at(time: float, max_guidance: float) -> float:
    """Returns the strength of guidance at a flow time: (1 - s) / s * (s^2 + (1 - s)^2) / (1 - s)^2 with s = 1 - time.

    It is infinite at both ends and limited to `max_guidance`.
    """
    progress = 1.0 - time
    if progress <= 0.0 or time <= 0.0:
        return max_guidance
    return min(max_guidance, time / progress * (progress**2 + time**2) / time**2)


class GuidedFlow:
    """A flow led towards the chunk under way by inference-time guidance."""

    def __init__(
        self,
        flow: Flow,
        under_way: ChunkUnderWay,
        *,
        schedule: str = "exponential",
        max_guidance: float = DEFAULT_MAX_GUIDANCE,
    ) -> None:
        """Leads `flow`, which must have gradients with respect to its actions."""
        self._flow = flow
        self._target = under_way.actions
        horizon = under_way.actions.shape[1]
        self._weights = prefix_weights(horizon, under_way.delay, under_way.length, schedule)[..., None]
        self._max_guidance = max_guidance

    def velocity(self, x_t: Float[Tensor, "R H A"], time: float | Tensor) -> Float[Tensor, "R H A"]:
        """Returns the guided velocity, without gradients; `time` must be a number."""
        if isinstance(time, Tensor):
            raise TypeError("Guidance needs one time for all rows, as a number; got a tensor.")
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            velocity = self._flow.velocity(x_t, time)
            clean = x_t - time * velocity
            error = (self._weights * (self._target - clean)).detach()
            (correction,) = torch.autograd.grad(clean, x_t, error)
        return velocity.detach() - guidance_at(time, self._max_guidance) * correction


class ConditionedFlow:
    """A flow whose first actions are given; for policies trained with them."""

    def __init__(self, flow: Flow, under_way: ChunkUnderWay) -> None:
        """Leads `flow`; begin with what `begin` returns."""
        self._flow = flow
        self._target = under_way.actions
        index = torch.arange(under_way.actions.shape[1], device=under_way.actions.device)
        self._is_given: Bool[Tensor, "R H"] = index < under_way.delay.minimum(under_way.length)[:, None]

    def begin(self, noise: Float[Tensor, "R H A"]) -> Float[Tensor, "R H A"]:
        """Returns the noise to start from: given actions stand in it, and stay."""
        return torch.where(self._is_given[..., None], self._target, noise)

    def velocity(self, x_t: Float[Tensor, "R H A"], time: float | Tensor) -> Float[Tensor, "R H A"]:
        """Returns the velocity: 0 at given actions, which the network sees clean, at time 0."""
        whole = torch.as_tensor(time, dtype=x_t.dtype, device=x_t.device)
        whole = whole[:, None] if whole.dim() == 1 else whole
        times = torch.where(self._is_given, 0.0, whole)
        velocity = self._flow.velocity(self.begin(x_t), times)
        return torch.where(self._is_given[..., None], 0.0, velocity)


def delayed_times(time: Float[Tensor, "*R"], delay: Int[Tensor, "*R"], horizon: int) -> Float[Tensor, "*R H"]:
    """Returns one flow time per action for training: 0 for the first `delay` actions, which are given."""
    index = torch.arange(horizon, device=time.device)
    return torch.where(index < delay[..., None], 0.0, time[..., None])
