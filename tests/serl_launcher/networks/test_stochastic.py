"""Stochastic samplers on a Gaussian in one dimension, where everything is known, and on a small network."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from serl_launcher.errors import ConfigError
from serl_launcher.networks.sampling import NetworkFlow, flow_times, sample_euler
from serl_launcher.networks.stochastic import StochasticSampler
from tests.serl_launcher.networks.small import small_inputs, small_network

MEAN, STD = 0.7, 0.4


class GaussianFlow:
    """The exact velocity for data from Normal(MEAN, STD): E[noise - data | x_t], linear in x_t."""

    def coefficients(self, time):
        variance = time**2 + (1 - time) ** 2 * STD**2
        slope = (time - (1 - time) * STD**2) / variance
        return slope, -slope * (1 - time) * MEAN - MEAN

    def velocity(self, x_t, time):
        slope, offset = self.coefficients(time)
        return slope * x_t + offset


def hand_computed_step(sampler, x, time):
    """Mean and deviation of one step from the formulas of the module's docstring, spelled out with numbers."""
    slope, offset = GaussianFlow().coefficients(time)
    velocity, step = slope * x + offset, 1 / sampler.num_steps
    if sampler.kind == "injected":
        return x - step * velocity, sampler.noise_level * math.sqrt(step)
    rate = sampler.noise_level * math.sqrt(time / max(1 - time, step))
    noise = x + (1 - time) * velocity
    return x - step * (velocity + rate**2 / (2 * time) * noise), rate * math.sqrt(step)


def samplers(**settings):
    return [StochasticSampler(kind=kind, **settings) for kind in ("sde", "injected")]


@pytest.mark.parametrize("sampler", samplers(num_steps=5, noise_level=0.6), ids=["sde", "injected"])
def test_every_step_has_the_density_of_the_gaussian_computed_by_hand(sampler):
    path = sampler.sample(GaussianFlow(), torch.randn(7, 1, 1))
    assert path.points.shape == (7, 6, 1, 1)
    for step, time in enumerate(flow_times(5)):
        for row in range(7):
            x, after = path.points[row, step, 0, 0].item(), path.points[row, step + 1, 0, 0]
            mean, std = hand_computed_step(sampler, x, time)
            expected = Normal(mean, std).log_prob(after).item()
            assert path.log_prob[row, step, 0, 0].item() == pytest.approx(expected, abs=2e-4)
    torch.testing.assert_close(sampler.log_prob(GaussianFlow(), path.points), path.log_prob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", samplers(num_steps=3, noise_level=0.8), ids=["sde", "injected"])
def test_densities_of_paths_integrate_to_the_density_of_the_actions(sampler):
    """Integrates exp(log_prob) of all paths from one noise over the points between; the result is known exactly."""
    grid = torch.linspace(-5, 5, 161)
    width = (grid[1] - grid[0]).item()
    start = 0.3
    first, second, last = torch.meshgrid(grid, grid, grid[::8], indexing="ij")
    points = torch.stack([torch.full_like(first, start), first, second, last], -1).reshape(-1, 4, 1, 1)
    density = sampler.log_prob(GaussianFlow(), points).sum((1, 2, 3)).exp().reshape(first.shape)
    marginal = density.sum((0, 1)) * width**2
    mean, variance = start, 0.0
    for time in flow_times(3):
        at_zero, std = hand_computed_step(sampler, 0.0, time)
        slope = hand_computed_step(sampler, 1.0, time)[0] - at_zero
        mean, variance = slope * mean + at_zero, slope**2 * variance + std**2
    expected = Normal(mean, math.sqrt(variance)).log_prob(grid[::8]).exp()
    torch.testing.assert_close(marginal, expected, rtol=1e-3, atol=1e-4)
    assert marginal.sum().item() * 8 * width == pytest.approx(1.0, abs=2e-2)


@pytest.mark.parametrize("noise_level", [0.3, 1.0])
def test_the_sde_has_the_marginals_of_the_flow(noise_level):
    sampler = StochasticSampler(num_steps=200, noise_level=noise_level)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40_000, 1, 1, generator=generator)
    actions = sampler.sample(GaussianFlow(), noise, generator=generator).actions
    assert actions.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert actions.std().item() == pytest.approx(STD, abs=0.02)


def test_with_little_noise_the_path_is_eulers():
    noise = torch.randn(5, 2, 3)
    for sampler in samplers(num_steps=10, noise_level=1e-6):
        actions = sampler.sample(GaussianFlow(), noise).actions
        torch.testing.assert_close(actions, sample_euler(GaussianFlow(), noise, 10), rtol=1e-4, atol=1e-4)


def test_log_prob_has_the_gradient_of_finite_differences():
    network, inputs = small_network(), small_inputs()
    sampler = StochasticSampler(num_steps=3, noise_level=0.7)
    with torch.no_grad():
        prefix = network.encode(inputs)
        path = sampler.sample(NetworkFlow(network, prefix, inputs.state), torch.randn(3, 6, 4))

    def total():
        return sampler.log_prob(NetworkFlow(network, prefix, inputs.state), path.points).double().sum()

    torch.testing.assert_close(total(), path.log_prob.double().sum(), rtol=1e-4, atol=1e-3)
    bias = network.action_out_proj.bias
    (gradient,) = torch.autograd.grad(total(), bias)
    for number in range(len(bias)):
        values = []
        for shift in (1e-2, -1e-2):
            with torch.no_grad():
                bias[number] += shift
                values.append(total().item())
                bias[number] -= shift
        assert gradient[number].item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2, abs=5e-2)


def test_the_same_seed_draws_the_same_path():
    draws = [
        StochasticSampler().sample(GaussianFlow(), torch.ones(2, 3, 1), generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(draws[0].points, draws[1].points)


@pytest.mark.parametrize("settings", [{"kind": "ode"}, {"noise_level": 0.0}, {"num_steps": 0}])
def test_settings_without_a_density_are_refused(settings):
    with pytest.raises(ConfigError):
        StochasticSampler(**settings)
