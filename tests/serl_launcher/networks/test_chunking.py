"""Real-time chunking against the published formulas, on a linear flow and on a small network."""

import math

import pytest
import torch

from serl_launcher.errors import ConfigError
from serl_launcher.networks.chunking import (
    ChunkUnderWay,
    ConditionedFlow,
    GuidedFlow,
    delayed_times,
    guidance_at,
    prefix_weights,
)
from serl_launcher.networks.frozen import FrozenPi0
from serl_launcher.networks.sampling import NetworkFlow, sample_euler
from tests.serl_launcher.networks.small import small_inputs, small_network


def under_way(actions, delay, length):
    return ChunkUnderWay(actions=actions, delay=torch.as_tensor(delay), length=torch.as_tensor(length))


def flow_of(network):
    inputs = small_inputs()
    with torch.no_grad():
        return NetworkFlow(network, network.encode(inputs), inputs.state)


@pytest.mark.parametrize("schedule", ["exponential", "linear", "ones", "zeros"])
def test_weights_are_the_published_ones(schedule):
    weights = prefix_weights(8, torch.tensor([2]), torch.tensor([6]), schedule)[0].tolist()
    c = [(6 - i) / (6 - 2 + 1) for i in range(2, 6)]
    between = {
        "exponential": [x * (math.exp(x) - 1) / (math.e - 1) for x in c],
        "linear": c,
        "ones": [1.0] * 4,
        "zeros": [0.0] * 4,
    }[schedule]
    assert weights == pytest.approx([1, 1, *between, 0, 0])


def test_weights_of_a_chunk_that_is_nearly_over():
    assert prefix_weights(4, torch.tensor([3]), torch.tensor([1]))[0].tolist() == [1, 0, 0, 0]


def test_guidance_is_the_published_expression_and_limited():
    for time in (0.2, 0.5, 0.8):
        s = 1 - time
        assert guidance_at(time, 100.0) == pytest.approx((1 - s) / s * (s**2 + (1 - s) ** 2) / (1 - s) ** 2)
    assert guidance_at(1.0, 7.0) == 7.0
    assert guidance_at(0.9, 3.0) == 3.0


def test_guidance_goes_through_the_models_jacobian():
    """For v = x M the correction is (I - t M)^T applied to the weighted error; written out with the matrix."""
    matrix = torch.randn(2, 2)

    class Linear:
        def velocity(self, x_t, time):
            return x_t @ matrix

    x_t, target, time = torch.randn(1, 4, 2), torch.randn(1, 4, 2), 0.6
    weights = prefix_weights(4, torch.tensor([1]), torch.tensor([3]), "linear")[..., None]
    error = weights * (target - (x_t - time * x_t @ matrix))
    correction = error - time * error @ matrix.T
    guided = GuidedFlow(Linear(), under_way(target, [1], [3]), schedule="linear", max_guidance=5.0)
    expected = x_t @ matrix - guidance_at(time, 5.0) * correction
    torch.testing.assert_close(guided.velocity(x_t, time), expected)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_guidance_of_zero_is_plain_sampling(name):
    flow, noise = flow_of(small_network(name)), torch.randn(3, 6, 4)
    old = under_way(torch.randn(3, 6, 4), [2] * 3, [5] * 3)
    with torch.no_grad():
        plain = sample_euler(flow, noise, 4)
    assert torch.equal(sample_euler(GuidedFlow(flow, old, max_guidance=0.0), noise, 4), plain)
    nothing_left = under_way(torch.randn(3, 6, 4), [0] * 3, [0] * 3)
    torch.testing.assert_close(sample_euler(GuidedFlow(flow, nothing_left), noise, 4), plain)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
@pytest.mark.parametrize("frozen", [False, True], ids=["network", "frozen"])
def test_a_guided_chunk_continues_the_one_under_way(name, frozen):
    network, inputs, noise = small_network(name), small_inputs(), torch.randn(3, 6, 4)
    with torch.no_grad():
        snapshot = FrozenPi0(network)
        flow = snapshot.flow(snapshot.encode(inputs)) if frozen else flow_of(network)
        plain = sample_euler(flow, noise, 20)
        target = plain + 0.3 * torch.randn_like(plain)
        guided = sample_euler(GuidedFlow(flow, under_way(target, [3] * 3, [5] * 3), max_guidance=5.0), noise, 20)
    before, after = ((x - target)[:, :3].abs().mean().item() for x in (plain, guided))
    assert after < 0.35 * before


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_given_actions_stand_in_the_chunk_exactly(name):
    flow, noise, target = flow_of(small_network(name)), torch.randn(3, 6, 4), torch.randn(3, 6, 4)
    conditioned = ConditionedFlow(flow, under_way(target, [0, 2, 4], [6, 6, 3]))
    with torch.no_grad():
        actions = sample_euler(conditioned, conditioned.begin(noise), 4)
        plain = sample_euler(flow, noise, 4)
    torch.testing.assert_close(actions[0], plain[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(actions[1, :2], target[1, :2])
    assert torch.equal(actions[2, :3], target[2, :3])
    assert not torch.equal(actions[2, 3], target[2, 3])


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_the_network_sees_given_actions_as_it_saw_them_in_training(name):
    """The velocity of a conditioned flow is the one that training with `delayed_times` compares with its target."""
    network, inputs = small_network(name), small_inputs()
    actions, noise = torch.randn(3, 6, 4), torch.randn(3, 1, 6, 4)
    delay, time = torch.tensor([[0], [2], [5]]), torch.rand(3, 1)
    with torch.no_grad():
        error = network.flow_error(inputs, actions, noise, delayed_times(time, delay, 6))[:, 0]
        flow = ConditionedFlow(flow_of(network), under_way(actions, delay[:, 0], [6] * 3))
        x_t = time[..., None] * noise[:, 0] + (1 - time[..., None]) * actions
        velocity = flow.velocity(flow.begin(x_t), time[:, 0])
    free = torch.arange(6) >= delay
    expected = (velocity - (noise[:, 0] - actions)).square()
    torch.testing.assert_close(error[free], expected[free], rtol=1e-4, atol=1e-5)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match="exponential"):
        prefix_weights(4, torch.tensor([1]), torch.tensor([2]), "cosine")
