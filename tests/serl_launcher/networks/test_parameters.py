"""Sizes and names of the published models, on the meta device: nothing is allocated."""

import pytest
import torch

from serl_launcher.config import load
from serl_launcher.networks.build import build_network

PALIGEMMA, EXPERT = "paligemma_with_expert.paligemma.model.", "paligemma_with_expert.gemma_expert."
# Numbers of the published checkpoints without the expert's dead head and the second name of the tied embedding.
COUNTS = {
    "pi0": {"": 3_238_048_528, EXPERT: 311_464_960, "heads": 3_248_160},
    "pi05": {"": 3_353_433_872, EXPERT: 427_932_672, "heads": 2_165_792},
}
SHARED = {
    f"{PALIGEMMA}vision_tower.": 412_442_352,
    f"{PALIGEMMA}multi_modal_projector.": 2_361_344,
    f"{PALIGEMMA}language_model.": 2_508_531_712,
}
TENSORS = {"pi0": 776, "pi05": 811}


@pytest.fixture(name="network", params=["pi0", "pi05"], scope="module")
def fixture_network(request):
    with torch.device("meta"):
        return build_network(load([f"policy={request.param}"]).policy)


def test_parameter_counts_are_the_published_ones(network):
    weights = network.state_dict()
    expected = SHARED | COUNTS[network.config.name]
    heads = [name for name in weights if not name.startswith("paligemma_with_expert.")]
    counts = {part: sum(weights[name].numel() for name in weights if name.startswith(part)) for part in expected}
    counts["heads"] = sum(weights[name].numel() for name in heads)
    assert counts == expected
    assert len(weights) == TENSORS[network.config.name]


def test_every_tensor_has_a_published_name_and_shape(network):
    weights = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    vision = f"{PALIGEMMA}vision_tower.vision_model."
    assert weights[f"{vision}embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert weights[f"{vision}embeddings.position_embedding.weight"] == (256, 1152)
    assert weights[f"{vision}encoder.layers.26.self_attn.out_proj.bias"] == (1152,)
    assert weights[f"{vision}post_layernorm.weight"] == (1152,)
    assert weights[f"{PALIGEMMA}multi_modal_projector.linear.weight"] == (2048, 1152)
    assert weights[f"{PALIGEMMA}language_model.embed_tokens.weight"] == (257152, 2048)
    assert weights[f"{PALIGEMMA}language_model.layers.17.self_attn.k_proj.weight"] == (256, 2048)
    assert weights[f"{PALIGEMMA}language_model.norm.weight"] == (2048,)
    assert weights[f"{EXPERT}model.layers.17.mlp.down_proj.weight"] == (1024, 4096)
    assert weights["action_out_proj.weight"] == (32, 1024)
    is_pi05 = network.config.name == "pi05"
    conditioned = {"input_layernorm.dense.weight": (3072, 1024), "post_attention_layernorm.dense.bias": (3072,)}
    plain = {"input_layernorm.weight": (1024,), "post_attention_layernorm.weight": (1024,)}
    for name, shape in (conditioned if is_pi05 else plain).items():
        assert weights[f"{EXPERT}model.layers.0.{name}"] == shape
    heads = {"time_mlp_in.weight": (1024, 1024), "time_mlp_out.bias": (1024,)}
    heads_of_pi0 = {"state_proj.weight": (1024, 32), "action_time_mlp_in.weight": (1024, 2048)}
    for name, shape in (heads if is_pi05 else heads_of_pi0).items():
        assert weights[name] == shape


@pytest.mark.parametrize(
    ("name", "millions"), [("pi0", 3238), ("pi0_small", 122.8), ("pi0_tiny", 1.3), ("pi05", 3353), ("pi05_tiny", 1.6)]
)
def test_the_sizes_that_the_files_speak_of_are_theirs(name, millions):
    with torch.device("meta"):
        network = build_network(load([f"policy={name}"]).policy)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(("name", "length", "kind"), [("pi0", 48, "zscore"), ("pi05", 200, "quantile")])
def test_prompts_and_statistics_are_the_published_ones(name, length, kind):
    config = load([f"policy={name}"]).policy
    assert (config.max_token_len, config.normalization) == (length, kind)
    assert (config.horizon, config.num_steps, config.max_action_dim) == (50, 10, 32)
