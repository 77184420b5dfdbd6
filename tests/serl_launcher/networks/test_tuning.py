"""Which weights train, and layers that are computed again."""

import pytest
import torch
from torch import nn

from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.errors import ConfigError
from serl_launcher.networks.tuning import trainable_fraction, tune_
from tests.serl_launcher.networks.small import small_inputs, small_network


def tuned(name="pi0", **settings):
    network = small_network(name)
    tune_(network, TuningConfig(**settings))
    return network


def trained_parts(network):
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    parts = ("vision_tower", "multi_modal_projector", "language_model", "gemma_expert", "action_out_proj")
    return [part for part in parts if any(part in name for name in names)]


def test_everything_trains_by_default():
    assert trainable_fraction(tuned()) == 1.0


def test_freeze_vision_stops_the_tower_alone():
    parts = trained_parts(tuned(freeze_vision=True))
    assert parts == ["multi_modal_projector", "language_model", "gemma_expert", "action_out_proj"]


def test_expert_only_stops_all_of_the_backbone():
    network = tuned(expert_only=True)
    assert trained_parts(network) == ["gemma_expert", "action_out_proj"]
    assert 0 < trainable_fraction(network) < 0.5


def gradients(network):
    generator = torch.Generator().manual_seed(0)
    noise, time = torch.randn((3, 2, 6, 4), generator=generator), torch.rand((3, 2), generator=generator)
    network.flow_error(small_inputs(), torch.ones(3, 6, 4), noise, time).mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_recomputed_layers_give_the_same_gradients_bit_for_bit(name):
    kept, recomputed = gradients(tuned(name)), gradients(tuned(name, gradient_checkpointing=True))
    assert kept.keys() == recomputed.keys()
    assert all(torch.equal(kept[key], recomputed[key]) for key in kept)


def test_recomputed_layers_keep_less():
    def saved_bytes(network):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            gradients(network)
        return sum(sizes)

    assert saved_bytes(tuned(gradient_checkpointing=True)) < 0.5 * saved_bytes(tuned())


def test_recomputing_is_off_while_acting():
    network = tuned(gradient_checkpointing=True).eval()
    noise = torch.randn(3, 1, 6, 4)
    with torch.no_grad():
        torch.testing.assert_close(network.sample(small_inputs(), noise), tuned().sample(small_inputs(), noise))


@pytest.mark.parametrize(
    "settings", [{"freeze_vision": True}, {"expert_only": True}, {"gradient_checkpointing": True},
                 {"lora": LoraConfig(expert_rank=2)}],
)  # fmt: skip
def test_a_feature_that_the_network_lacks_is_refused(settings):
    with pytest.raises(ConfigError, match=r"policy\.tuning"):
        tune_(nn.Sequential(nn.Linear(2, 2)), TuningConfig(**settings))


def test_factors_are_not_put_on_factors():
    with pytest.raises(ConfigError, match="already"):
        tune_(tuned(lora=LoraConfig(expert_rank=2)), TuningConfig(lora=LoraConfig(expert_rank=2)))


def test_expert_only_contradicts_factors_in_the_language_model():
    with pytest.raises(ConfigError, match="expert_only"):
        TuningConfig(expert_only=True, lora=LoraConfig(language_rank=4))
