"""CUDA graphs, where there is a GPU; without one they are refused."""

import dataclasses

import pytest
import torch

from serl_launcher.errors import ConfigError
from serl_launcher.networks.cuda_graph import GraphedSampler
from serl_launcher.networks.frozen import FrozenPi0
from tests.serl_launcher.networks.small import small_inputs, small_network


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_a_replayed_call_equals_the_call(name):
    network = FrozenPi0(small_network(name).cuda())
    graphed = GraphedSampler(network)
    for seed, draws in ((1, 1), (2, 1), (3, 4), (1, 1)):
        inputs = small_inputs(seed=seed)
        inputs = type(inputs)(**{f.name: getattr(inputs, f.name).cuda() for f in dataclasses.fields(inputs)})
        noise = torch.randn(3, draws, 6, 4, device="cuda")
        torch.testing.assert_close(graphed.sample(inputs, noise), network.sample(inputs, noise), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_a_call_never_waits_for_the_gpu():
    network = FrozenPi0(small_network().cuda())
    network.prepare(4)
    inputs = small_inputs()
    inputs = type(inputs)(**{f.name: getattr(inputs, f.name).cuda() for f in dataclasses.fields(inputs)})
    noise = torch.randn(3, 1, 6, 4, device="cuda")
    network.sample(inputs, noise)
    torch.cuda.set_sync_debug_mode("error")
    try:
        network.sample(inputs, noise)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_graphs_are_refused():
    with pytest.raises(ConfigError, match="cuda_graph=false"):
        GraphedSampler(FrozenPi0(small_network()))
