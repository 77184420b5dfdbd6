"""The frozen form against the network it was made from."""

import dataclasses

import pytest
import torch

from serl_launcher.config.policy import GemmaConfig
from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.networks.frozen import FrozenPi0
from serl_launcher.networks.lora import lora_layers
from serl_launcher.networks.sampling import NetworkFlow
from serl_launcher.networks.tuning import tune_
from tests.serl_launcher.networks.small import small_inputs, small_network

NAMES = ("pi0", "pi05")


def padded_inputs():
    """Prompts of different lengths, and one sample without its second camera."""
    inputs = small_inputs()
    inputs.image_valid[1, 1] = False
    return inputs


def dense_inputs():
    inputs = small_inputs()
    return dataclasses.replace(inputs, token_valid=torch.arange(12)[None].expand(3, -1) < 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inputs", [padded_inputs(), dense_inputs()], ids=["padded", "dense"])
@pytest.mark.parametrize("num_steps", [1, 4, 10])
def test_the_frozen_form_samples_the_same_actions(name, inputs, num_steps):
    network = small_network(name)
    noise = torch.randn(3, 2, 6, 4)
    with torch.no_grad():
        expected = network.sample(inputs, noise, num_steps)
    torch.testing.assert_close(FrozenPi0(network).sample(inputs, noise, num_steps), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inputs", [padded_inputs(), dense_inputs()], ids=["padded", "dense"])
def test_one_key_value_head_takes_other_paths_of_attention(name, inputs):
    gemma = GemmaConfig(width=32, depth=2, mlp_dim=48, num_heads=2, num_kv_heads=1, head_dim=128)
    for config in (gemma, dataclasses.replace(gemma, head_dim=8)):
        network = small_network(name, language=config, expert=dataclasses.replace(config, width=24))
        noise = torch.randn(3, 2, 6, 4)
        with torch.no_grad():
            expected = network.sample(inputs, noise)
        torch.testing.assert_close(FrozenPi0(network).sample(inputs, noise), expected, rtol=1e-4, atol=2e-5)


TIMES = {"one": 0.35, "rows": torch.tensor([0.1, 0.5, 1.0]), "actions": torch.rand(3, 6)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", TIMES.values(), ids=TIMES.keys())
def test_velocity_and_its_gradient_equal_the_networks_at_any_time(name, time):
    network, inputs = small_network(name), padded_inputs()
    frozen = FrozenPi0(network)
    x_t, weight = torch.randn(3, 6, 4), torch.randn(3, 6, 4)
    with torch.no_grad():
        flows = [NetworkFlow(network, network.encode(inputs), inputs.state), frozen.flow(frozen.encode(inputs))]
        in_place = flows[1].velocity(x_t, time)
    results = []
    for flow in flows:
        x = x_t.clone().requires_grad_()
        velocity = flow.velocity(x, time)
        results.append((velocity.detach(), torch.autograd.grad(velocity, x, weight)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(in_place, results[0][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_factors_are_folded_in(name):
    network = small_network(name)
    tune_(network, TuningConfig(lora=LoraConfig(language_rank=2, expert_rank=2, init="openpi")))
    with torch.no_grad():
        for _, layer in lora_layers(network):
            layer.lora_b.normal_(std=0.3)
        noise = torch.randn(3, 1, 6, 4)
        expected = network.sample(padded_inputs(), noise)
    torch.testing.assert_close(FrozenPi0(network).sample(padded_inputs(), noise), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_within_its_rounding(name):
    network, noise = small_network(name), torch.randn(3, 1, 6, 4)
    with torch.no_grad():
        expected = network.sample(padded_inputs(), noise)
    half = FrozenPi0(network, dtype=torch.bfloat16).sample(padded_inputs(), noise)
    assert half.dtype == torch.float32
    assert 0 < (half - expected).norm() / expected.norm() < 0.03


def test_tables_stay_where_recorded_graphs_read_them(monkeypatch):
    monkeypatch.setattr("serl_launcher.networks.frozen._MAX_TIMES", 2)
    frozen = FrozenPi0(small_network())
    kept = [frozen.time_table(time) for time in (1.0, 0.5)]
    beyond = frozen.time_table(0.25)
    assert [frozen.time_table(time) for time in (1.0, 0.5)] == kept
    torch.testing.assert_close(frozen.time_table(0.25).bias, beyond.bias)


def test_tables_of_a_sampler_are_made_once():
    frozen = FrozenPi0(small_network())
    frozen.prepare(4)
    tables = [frozen.time_table(time) for time in (1.0, 0.75, 0.5, 0.25)]
    frozen.sample(small_inputs(), torch.randn(3, 1, 6, 4), 4)
    assert all(frozen.time_table(t) is table for t, table in zip((1.0, 0.75, 0.5, 0.25), tables, strict=True))
