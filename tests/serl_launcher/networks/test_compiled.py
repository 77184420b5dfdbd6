"""Compiling, and going on where it fails."""

import logging

import pytest
import torch

from serl_launcher.networks.compiled import compiled
from serl_launcher.networks.frozen import FrozenPi0
from tests.serl_launcher.networks.small import small_inputs, small_network


def no_compiler(graph, inputs):
    raise RuntimeError("there is no C++ compiler on this machine")


def test_without_a_compiler_the_policy_acts_uncompiled_and_says_so_once(caplog):
    network, noise = small_network(), torch.randn(3, 1, 6, 4)
    frozen = FrozenPi0(network)
    expected = frozen.sample(small_inputs(), noise)
    frozen.compile_(backend=no_compiler)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(frozen.sample(small_inputs(), noise), expected)
    assert len(caplog.records) == 3
    assert all("acts uncompiled" in record.getMessage() for record in caplog.records)


def test_more_shapes_than_torchs_default_are_compiled():
    num_compiled = 0

    def counting(graph, _inputs):
        nonlocal num_compiled
        num_compiled += 1
        return graph.forward

    double = compiled(lambda x: x * 2, backend=counting)
    for size in range(2, 14):
        assert torch.equal(double(torch.ones(size)), torch.full((size,), 2.0))
    assert num_compiled == 12


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_what_is_handed_to_the_compiler_computes_the_same(name):
    network, noise = small_network(name), torch.randn(3, 1, 6, 4)
    expected = FrozenPi0(network).sample(small_inputs(), noise)
    frozen = FrozenPi0(network)
    frozen.compile_(backend="aot_eager")
    torch.testing.assert_close(frozen.sample(small_inputs(), noise), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_generated_code_computes_the_same():
    network, noise = small_network(), torch.randn(3, 1, 6, 4)
    expected = FrozenPi0(network).sample(small_inputs(), noise)
    frozen = FrozenPi0(network)
    frozen.compile_()
    torch.testing.assert_close(frozen.sample(small_inputs(), noise), expected, rtol=1e-3, atol=1e-4)


def test_an_error_of_the_function_itself_is_not_hidden():
    def divide(x):
        if x.shape[0] != 2:
            raise ValueError("expected two rows")
        return x / 2

    with pytest.raises(ValueError, match="two rows"):
        compiled(divide, backend="eager")(torch.ones(3))
