"""Half precision: which tensors stay, and that the policy still says the same."""

import pytest
import torch

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.build import build_network
from serl_launcher.networks.precision import cast_, parameter_dtype
from tests.serl_launcher.networks.small import small_inputs, small_network


def test_the_published_pi0_keeps_exactly_openpis_list():
    with torch.device("meta"):
        network = build_network(PolicyConfig())
    cast_(network, torch.bfloat16)
    kept = [name for name, parameter in network.named_parameters() if parameter.dtype == torch.float32]
    norms = [name for name in kept if "norm" in name]
    assert len(norms) == 2 * (18 * 2 + 1)
    assert not any("vision_model" in name for name in norms)
    assert len([name for name in kept if "embeddings." in name]) == 3
    assert len([name for name in kept if "paligemma_with_expert" not in name]) == 10
    assert len(kept) == len(norms) + 3 + 10
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_a_policy_in_half_precision_acts_within_its_rounding(name):
    inputs, noise = small_inputs(), torch.randn(3, 1, 6, 4)
    network = small_network(name)
    with torch.no_grad():
        full = network.sample(inputs, noise)
        cast_(network, torch.bfloat16)
        half = network.sample(inputs, noise)
    assert half.dtype == torch.float32
    error = (half - full).norm() / full.norm()
    assert 0 < error < 0.03


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_training_under_autocast_keeps_float32_weights_and_gradients(name):
    network = small_network(name)
    with torch.autocast("cpu", torch.bfloat16):
        error = network.flow_error(small_inputs(), torch.ones(3, 6, 4), torch.randn(3, 1, 6, 4), torch.rand(3, 1))
    error.mean().backward()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_autocast_spares_what_the_published_list_keeps_in_float32(name):
    network, computed_in = small_network(name), {}
    for path, module in network.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            module.register_forward_hook(lambda _, __, output, path=path: computed_in.update({path: output.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        network.flow_error(small_inputs(), torch.ones(3, 6, 4), torch.randn(3, 1, 6, 4), torch.rand(3, 1))
    assert computed_in == {path: parameter_dtype(f"{path}.weight", torch.bfloat16) for path in computed_in}
    assert sum(dtype == torch.float32 for dtype in computed_in.values()) == {"pi0": 6, "pi05": 5 + 2 * 3 + 1}[name]
