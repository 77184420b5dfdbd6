"""LoRA against its definition, and what trains under it."""

import pytest
import torch
from torch import nn

from serl_launcher.config.tuning import LoraConfig
from serl_launcher.errors import ConfigError
from serl_launcher.networks.build import build_network
from serl_launcher.networks.lora import (
    LoraLinear,
    apply_lora_,
    load_trainable_,
    lora_layers,
    merge_,
    merged_state_dict,
    trainable_state_dict,
)
from tests.serl_launcher.networks.small import small_config, small_inputs, small_network

OPENPI = LoraConfig(language_rank=3, language_alpha=6.0, expert_rank=2, expert_alpha=8.0, init="openpi")


def lively(network):
    """Draws the factors anew, so large that they matter."""
    with torch.no_grad():
        for _, layer in lora_layers(network):
            layer.lora_a.normal_(std=0.3)
            layer.lora_b.normal_(std=0.3)
    return network


def adapted(name="pi0", config=OPENPI, seed=0):
    network = small_network(name, seed=seed)
    apply_lora_(network, config)
    return lively(network)


def sample(network):
    noise = torch.randn((3, 2, 6, 4), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return network.sample(small_inputs(), noise)


@pytest.mark.parametrize(("in_groups", "out_groups"), [(1, 1), (1, 4), (4, 1)])
def test_an_adapted_layer_equals_openpis_einsums_per_head(in_groups, out_groups):
    layer = LoraLinear(
        nn.Linear(8, 12, bias=False), rank=3, scale=0.7, in_groups=in_groups, out_groups=out_groups, zero=False
    )
    x = torch.randn(2, 5, 8)
    update = torch.zeros(2, 5, 12)
    for group in range(in_groups * out_groups):
        factors = layer.lora_a[group] @ layer.lora_b[group]
        if in_groups > 1:
            update += x[..., 2 * group : 2 * group + 2] @ factors
        else:
            width = 12 // out_groups
            update[..., width * group : width * (group + 1)] += x @ factors
    torch.testing.assert_close(layer(x), x @ layer.weight.T + 0.7 * update)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_merged_equals_unmerged(name):
    network = adapted(name)
    plain = build_network(small_config(name))
    plain.load_state_dict(merged_state_dict(network))
    with_factors = sample(network)
    torch.testing.assert_close(sample(plain), with_factors, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(sample(small_network(name)), with_factors, atol=1e-2)
    merge_(network)
    assert not any(lora_layers(network))
    assert network.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(sample(network), with_factors, rtol=1e-4, atol=1e-5)


def test_a_zero_start_is_the_policy_as_it_was():
    network = small_network()
    before = sample(network)
    apply_lora_(network, LoraConfig(language_rank=3, expert_rank=2))
    assert torch.equal(sample(network), before)


def test_factors_have_the_shapes_and_scales_of_openpi():
    layers = {name.split("paligemma_with_expert.")[1]: layer for name, layer in lora_layers(adapted())}
    language, expert = "paligemma.model.language_model.layers.0.", "gemma_expert.model.layers.2."
    shapes = {
        language + "self_attn.q_proj": ((4, 32, 3), (4, 3, 8), 2.0),
        language + "self_attn.k_proj": ((2, 32, 3), (2, 3, 8), 2.0),
        language + "self_attn.o_proj": ((4, 8, 3), (4, 3, 32), 2.0),
        language + "mlp.gate_proj": ((1, 32, 3), (1, 3, 48), 1.0),
        expert + "self_attn.q_proj": ((4, 24, 2), (4, 2, 8), 4.0),
        expert + "mlp.down_proj": ((1, 40, 2), (1, 2, 24), 1.0),
    }
    for name, (a, b, scale) in shapes.items():
        assert (tuple(layers[name].lora_a.shape), tuple(layers[name].lora_b.shape), layers[name].scale) == (a, b, scale)
    assert len(layers) == 2 * 3 * 7


def test_a_stream_with_factors_is_frozen_and_the_rest_trains():
    network = small_network()
    apply_lora_(network, LoraConfig(language_rank=3))
    trained = trainable_state_dict(network).keys()
    assert all("lora_" in name for name in trained if "language_model" in name)
    assert any("language_model" in name for name in trained)
    for part in ("vision_tower", "gemma_expert", "multi_modal_projector", "action_out_proj"):
        assert any(part in name and "lora_" not in name for name in trained), part


def test_frozen_weights_do_not_move_and_only_trained_ones_need_saving():
    network = adapted()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        noise, time = torch.randn((3, 1, 6, 4), generator=generator), torch.rand((3, 1), generator=generator)
        optimizer.zero_grad()
        network.flow_error(small_inputs(), torch.ones(3, 6, 4), noise, time).mean().backward()
        optimizer.step()
    trained = trainable_state_dict(network)
    for name, tensor in network.state_dict().items():
        if name not in trained:
            assert torch.equal(tensor, before[name]), name
    moved = [name for name in trained if not torch.equal(trained[name], before[name])]
    assert all(name in moved for name in trained if "lora_b" in name and ".2." not in name)
    other = adapted(seed=7)
    other.load_state_dict({**other.state_dict(), **{k: v for k, v in before.items() if k not in trained}})
    load_trainable_(other, trained)
    assert torch.equal(sample(other), sample(network))


def test_trained_weights_of_another_tuning_are_refused():
    with pytest.raises(ConfigError, match="lora_a"):
        load_trainable_(small_network(), trainable_state_dict(adapted()))


def test_rank_stabilised_scaling_divides_by_the_root():
    network = small_network()
    apply_lora_(network, LoraConfig(expert_rank=4, expert_alpha=6.0, rank_stabilized=True, targets=["attn"]))
    assert {layer.scale for _, layer in lora_layers(network)} == {3.0}
    assert len(list(lora_layers(network))) == 3 * 4


def test_a_network_without_the_stream_is_refused():
    with pytest.raises(ConfigError, match="language_model"):
        apply_lora_(nn.Sequential(nn.Linear(2, 2)), LoraConfig(language_rank=2))


BAD = [{"targets": ["attention"]}, {"targets": []}, {"init": "ones"}, {"expert_rank": -1}]


@pytest.mark.parametrize("settings", BAD)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError):
        LoraConfig(**settings)
