"""Pooled features against sums written out."""

import pytest
import torch

from serl_launcher.errors import ConfigError
from serl_launcher.networks.features import encode, feature_width, pooled
from serl_launcher.networks.sampling import sample_euler
from tests.serl_launcher.networks.small import small_inputs, small_network


def test_means_are_over_valid_tokens_of_every_part():
    tokens = torch.arange(2 * 6 * 1, dtype=torch.float32).reshape(2, 6, 1)
    valid = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    mean = pooled(tokens, valid, num_text=2, num_cameras=2, pooling="mean")
    torch.testing.assert_close(mean, torch.tensor([[2.0], [6.5]]))
    parts = pooled(tokens, valid, num_text=2, num_cameras=2, pooling="parts")
    torch.testing.assert_close(parts, torch.tensor([[0.5, 2.5, 4.0], [6.5, 0.0, 0.0]]))


@pytest.mark.parametrize("pooling", ["mean", "parts"])
def test_padding_has_no_influence_and_the_width_is_known(pooling):
    network, inputs = small_network(), small_inputs()
    features = encode(network, inputs, pooling=pooling).features
    assert features.shape == (3, feature_width(network, num_cameras=2, pooling=pooling))
    inputs.tokens = torch.where(inputs.token_valid, inputs.tokens, 5)
    torch.testing.assert_close(encode(network, inputs, pooling=pooling).features, features, rtol=1e-4, atol=1e-5)


def test_chunks_of_an_encoding_are_those_of_the_network():
    network, inputs, noise = small_network(), small_inputs(), torch.randn(3, 2, 6, 4)
    with torch.no_grad():
        actions = sample_euler(encode(network, inputs).flow(2), noise.flatten(0, 1), 4)
        torch.testing.assert_close(actions.unflatten(0, (3, 2)), network.sample(inputs, noise))


def test_gradients_reach_the_backbone_only_where_wanted():
    network, inputs = small_network(), small_inputs()
    assert encode(network, inputs).features.requires_grad
    assert not encode(network, inputs, no_grad=True).features.requires_grad


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ConfigError, match="parts"):
        encode(small_network(), small_inputs(), pooling="max")
