"""π0.5 against its parts computed naively, and laws of its adaptive norms."""

import pytest
import torch
import torch.nn.functional as F

from serl_launcher.networks.gemma import AdaptiveRMSNorm
from serl_launcher.networks.pi0 import time_embedding
from tests.serl_launcher.networks.small import small_inputs, small_network


@pytest.fixture(name="network")
def fixture_network():
    return small_network("pi05")


def draws(batch=3):
    generator = torch.Generator().manual_seed(4)
    return torch.randn((batch, 6, 4), generator=generator), torch.rand(batch, generator=generator)


def test_an_adaptive_norm_is_its_formula():
    norm = AdaptiveRMSNorm(4, 3)
    torch.nn.init.normal_(norm.dense.weight)
    torch.nn.init.normal_(norm.dense.bias)
    x, condition = torch.randn(2, 5, 4), torch.randn(2, 3)
    scale, shift, gate = (norm.dense.weight @ condition[..., None])[..., 0].add(norm.dense.bias).split(4, dim=1)
    normed, gate_of_norm = norm(x, condition)
    root_mean_square = (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(normed, x / root_mean_square * (1 + scale[:, None]) + shift[:, None])
    torch.testing.assert_close(gate_of_norm, gate[:, None])


def test_one_condition_per_token_equals_one_for_all_where_they_agree():
    norm = AdaptiveRMSNorm(4, 3)
    torch.nn.init.normal_(norm.dense.weight)
    x, condition = torch.randn(2, 5, 4), torch.randn(2, 3)
    for once, repeated in zip(norm(x, condition), norm(x, condition[:, None].expand(-1, 5, -1)), strict=True):
        torch.testing.assert_close(once.expand(-1, 5, -1), repeated)


def test_an_adaptive_norm_without_its_condition_says_so():
    with pytest.raises(ValueError, match="condition"):
        AdaptiveRMSNorm(4, 3)(torch.zeros(1, 1, 4))


def test_a_fresh_expert_passes_its_tokens_through(network):
    expert = network.paligemma_with_expert.gemma_expert.model
    for module in expert.modules():
        if isinstance(module, AdaptiveRMSNorm):
            torch.nn.init.zeros_(module.dense.weight)
            torch.nn.init.zeros_(module.dense.bias)
    x_t, time = draws()
    inputs = small_inputs()
    tokens = network.action_in_proj(x_t)
    expected = network.action_out_proj(F.rms_norm(tokens, tokens.shape[-1:], eps=1e-6))
    torch.testing.assert_close(network.velocity(network.encode(inputs), inputs.state, x_t, time), expected)


def test_the_condition_is_the_embedded_time(network):
    x_t, time = draws()
    suffix = network.embed_suffix(torch.zeros(3, 5), x_t, time)
    assert suffix.condition is not None
    width = network.config.expert.width
    hidden = network.time_mlp_in(time_embedding(time, width))
    hidden = network.time_mlp_out(hidden * hidden.sigmoid())
    torch.testing.assert_close(suffix.condition, hidden * hidden.sigmoid())
    assert suffix.tokens.shape == (3, 6, width)


def test_the_state_vector_has_no_influence_and_the_prompt_has(network):
    x_t, time = draws()
    inputs = small_inputs()
    prefix = network.encode(inputs)
    velocity = network.velocity(prefix, inputs.state, x_t, time)
    torch.testing.assert_close(network.velocity(prefix, inputs.state + 3, x_t, time), velocity)
    inputs.tokens = inputs.tokens.flip(0)
    assert (network.velocity(network.encode(inputs), inputs.state, x_t, time) - velocity).abs().max() > 1e-4


def test_the_time_moves_the_velocity(network):
    x_t, time = draws()
    inputs = small_inputs()
    prefix = network.encode(inputs)
    velocities = [network.velocity(prefix, inputs.state, x_t, t) for t in (time, 1 - time)]
    assert (velocities[0] - velocities[1]).abs().max() > 1e-4
