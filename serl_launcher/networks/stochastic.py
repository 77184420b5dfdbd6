"""Samplers that draw noise in every step, so that a sampled path has a density.

`sde` follows the reverse-time stochastic equation whose marginals are those of the flow (Song et al. 2021,
arXiv:2011.13456; as in Flow-GRPO, arXiv:2505.05470, and πRL, arXiv:2510.25889): with x_t = t e + (1 - t) a, the
predicted noise is x + (1 - t) v and the score is minus that over t, hence for a step of length d

    x' ~ Normal(x - d (v + s^2 / (2 t) (x + (1 - t) v)), s^2 d)        s = level * sqrt(t / (1 - t))

with 1 - t replaced by d at t = 1, where it would vanish. `injected` adds noise of constant rate to Euler's method,
x' ~ Normal(x - d v, level^2 d): simpler, and not with the flow's marginals.

The density is that of the whole path given its first point, which is what policy gradients and entropy terms over
the chain need; the density of the last point alone has no closed form. All action dimensions count, padded ones too:
they are part of the path.

Legend: R rows, K steps, H chunk horizon, A action width.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from serl_launcher.errors import ConfigError
from serl_launcher.networks.sampling import Flow, flow_times

KINDS = ("sde", "injected")


@dataclass(frozen=True, slots=True)
class Path:
    """One draw of a stochastic sampler."""

    points: Float[Tensor, "R K+1 H A"]
    """From the first noise to the actions."""
    log_prob: Float[Tensor, "R K H A"]
    """Log-density of every coordinate of every step given the point before; their sum is the path's."""

    @property
    def actions(self) -> Float[Tensor, "R H A"]:
        """The last points."""
        return self.points[:, -1]


@dataclass(kw_only=True, slots=True)
class StochasticSampler:
    """Draws paths and evaluates their density."""

    num_steps: int = 10
    """Steps of a path."""
    noise_level: float = 0.5
    """Scale of the noise, above 0."""
    kind: str = "sde"
    """`sde` keeps the marginals of the flow, `injected` adds noise at a constant rate."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"A stochastic sampler is one of {list(KINDS)}, got {self.kind!r}.")
        if self.noise_level <= 0 or self.num_steps < 1:
            raise ConfigError(
                f"A stochastic sampler needs noise_level > 0 and num_steps >= 1, got {self.noise_level} and "
                f"{self.num_steps}. Without noise use the Euler sampler: it has no density."
            )

    def sample(
        self, flow: Flow, noise: Float[Tensor, "R H A"], *, generator: torch.Generator | None = None,
        draws: Float[Tensor, "R K H A"] | None = None,
    ) -> Path:  # fmt: skip
        """Draws one path per row, starting at `noise`; its steps are those of `draws`, standard normal, where given."""
        points, log_prob = [noise], []
        for step, time in enumerate(flow_times(self.num_steps)):
            mean, std = self.transition(flow, points[-1], time)
            draw = _normal_like(mean, generator) if draws is None else draws[:, step]
            points.append(mean + std * draw)
            log_prob.append(_log_density(draw, std))
        return Path(torch.stack(points, 1), torch.stack(log_prob, 1))

    def log_prob(self, flow: Flow, points: Float[Tensor, "R K+1 H A"]) -> Float[Tensor, "R K H A"]:
        """Returns the log-densities of paths drawn before, with gradients with respect to the flow's weights."""
        parts = []
        for step, time in enumerate(flow_times(self.num_steps)):
            mean, std = self.transition(flow, points[:, step], time)
            parts.append(_log_density((points[:, step + 1] - mean) / std, std))
        return torch.stack(parts, 1)

    def transition(self, flow: Flow, x_t: Float[Tensor, "R H A"], time: float) -> tuple[Float[Tensor, "R H A"], float]:
        """Returns mean and standard deviation of the point after `x_t`."""
        step = 1.0 / self.num_steps
        velocity = flow.velocity(x_t, time)
        if self.kind == "injected":
            return x_t - step * velocity, self.noise_level * math.sqrt(step)
        variance_rate = self.noise_level**2 * time / max(1.0 - time, step)
        predicted_noise = x_t + (1.0 - time) * velocity
        drift = velocity + variance_rate / (2.0 * time) * predicted_noise
        return x_t - step * drift, math.sqrt(variance_rate * step)


def _normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device).to(x.device)


def _log_density(standardized: Tensor, std: float) -> Tensor:
    return -0.5 * standardized.square() - math.log(std * math.sqrt(2.0 * math.pi))
