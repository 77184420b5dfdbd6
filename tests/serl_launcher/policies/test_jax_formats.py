"""openpi's JAX checkpoints: synthetic trees, and one that orbax itself wrote."""

import json
import math
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from serl_launcher.errors import CheckpointError
from serl_launcher.policies import load_policy
from serl_launcher.policies.formats import check_weights, format_of, read_stored
from serl_launcher.policies.formats.jax_leaves import convert, merge_lora
from serl_launcher.policies.tokenizer import PromptTokenizer
from tests.serl_launcher.policies.conftest import make_policy
from tests.serl_launcher.policies.jax_checkpoint import jax_leaves, write_orbax
from tests.serl_launcher.policies.small_published import assert_equal_tensors, published_config


@pytest.fixture(name="policy", params=["pi0", "pi05"])
def fixture_policy(request, spec, digit_tokenizer):
    config = published_config(request.param)
    policy = make_policy(config, spec, PromptTokenizer(digit_tokenizer.model, config.max_token_len))
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


def test_a_jax_checkpoint_gives_the_same_tensors(policy, spec, digit_tokenizer, tmp_path):
    write_orbax(jax_leaves(policy.network), tmp_path / "30000" / "params")
    stats = tmp_path / "30000" / "assets" / "toy" / "norm_stats.json"
    stats.parent.mkdir(parents=True)
    lists = {
        key: {name: getattr(s, name) for name in ("mean", "std", "q01", "q99")} for key, s in policy.norm_stats.items()
    }
    stats.write_text(json.dumps({"norm_stats": lists}))
    (tmp_path / "tokenizer.model").write_bytes(digit_tokenizer.model)
    # A step, or its folder of arrays: people pass either.
    directory = tmp_path / "30000" / ("params" if policy.config.name == "pi05" else "")
    assert format_of(directory) == "openpi_jax"
    loaded = load_policy(directory, spec=spec, tokenizer_path=tmp_path / "tokenizer.model")
    assert_equal_tensors(policy.network.state_dict(), loaded.network.state_dict())
    assert loaded.norm_stats == policy.norm_stats
    for field in ("name", "vision", "language", "expert", "vocab_size", "max_token_len", "normalization"):
        assert getattr(loaded.config, field) == getattr(policy.config, field), field


def test_what_orbax_itself_wrote_is_read(tmp_path):
    """The archive was written by orbax-checkpoint 0.11.13 with jax 0.5.3, each leaf as `leaf_of` says."""

    def leaf_of(path, shape):
        size = math.prod(shape)
        return (zlib.crc32(path.encode()) % 1000 + np.arange(size) / size).reshape(shape).astype(np.float32)

    shutil.unpack_archive(Path(__file__).with_name("written_by_orbax.zip"), tmp_path)
    stored = read_stored(tmp_path)
    check_weights(stored.config, stored.weights)
    config = stored.config
    assert (config.name, config.vocab_size, config.vision.width, config.vision.image_size) == ("pi05", 16, 72, 8)
    assert (config.language.num_heads, config.expert.head_dim, config.max_action_dim) == (2, 4, 4)
    vision, expert = "paligemma_with_expert.paligemma.model.vision_tower.vision_model.", "PaliGemma/llm/layers/"
    weights = {name: tensor.numpy() for name, tensor in stored.weights.items()}
    query = leaf_of(f"{expert}attn/q_einsum_1/w", (1, 2, 8, 4))
    output = leaf_of("PaliGemma/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/out/kernel", (1, 1, 72, 72))
    patches = leaf_of("PaliGemma/img/embedding/kernel", (4, 4, 3, 72))
    stream = "paligemma_with_expert.gemma_expert.model.layers.0."
    np.testing.assert_array_equal(weights[f"{stream}self_attn.q_proj.weight"][4:], query[0, 1].T)
    np.testing.assert_array_equal(weights[f"{vision}encoder.layers.0.self_attn.out_proj.weight"], output[0, 0].T)
    np.testing.assert_array_equal(weights[f"{vision}embeddings.patch_embedding.weight"][5, 1], patches[:, :, 1, 5])
    np.testing.assert_array_equal(weights["action_in_proj.bias"], leaf_of("action_in_proj/bias", (8,)))


def test_a_jax_leaf_that_is_missing_or_unknown_is_listed(spec, digit_tokenizer):
    leaves = {
        path: torch.from_numpy(np.array(leaf))
        for path, leaf in jax_leaves(make_policy(published_config("pi05"), spec, digit_tokenizer).network).items()
    }
    del leaves["action_in_proj/bias"]
    leaves["PaliGemma/surplus/w"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as raised:
        convert(leaves)
    assert "2 problems" in str(raised.value)
    assert "missing action_in_proj/bias" in str(raised.value)
    assert "unexpected PaliGemma/surplus/w" in str(raised.value)


def test_jax_lora_factors_are_merged_per_head():
    rng = np.random.default_rng(0)
    leaves = {
        path: torch.from_numpy(rng.normal(size=shape))
        for path, shape in {
            "attn/q_einsum/w": (2, 3, 8, 4),
            "attn/q_einsum/lora_a": (2, 3, 8, 5),
            "attn/q_einsum/lora_b": (2, 3, 5, 4),
            "mlp/linear": (2, 6, 8),
            "mlp/linear_lora_a": (2, 6, 5),
            "mlp/linear_lora_b": (2, 5, 8),
        }.items()
    }
    merged = merge_lora(leaves)
    assert merged.keys() == {"attn/q_einsum/w", "mlp/linear"}
    for layer in range(2):
        for head in range(3):
            expected = leaves["attn/q_einsum/w"][layer, head] + (
                leaves["attn/q_einsum/lora_a"][layer, head] @ leaves["attn/q_einsum/lora_b"][layer, head]
            )
            torch.testing.assert_close(merged["attn/q_einsum/w"][layer, head], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(CheckpointError, match="no partner"):
        merge_lora({"mlp/linear": leaves["mlp/linear"], "mlp/linear_lora_a": leaves["mlp/linear_lora_a"]})
