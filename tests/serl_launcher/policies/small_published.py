"""A small policy with the published models' heads, for tests of checkpoints."""

import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig


def published_config(name, **changes):
    """Small, but with the published models' heads, so that every size can be read off the tensors."""
    return PolicyConfig(
        name=name,
        vision=VisionConfig(image_size=16, patch_size=8, width=144, depth=2, mlp_dim=40, num_heads=2),
        language=GemmaConfig(width=32, depth=2, mlp_dim=48, num_heads=2, num_kv_heads=1, head_dim=16),
        expert=GemmaConfig(width=24, depth=2, mlp_dim=40, num_heads=2, num_kv_heads=1, head_dim=16),
        vocab_size=400,
        **{
            "max_token_len": 200 if name == "pi05" else 48,
            "horizon": 6,
            "max_state_dim": 5,
            "max_action_dim": 5,
            "normalization": "quantile" if name == "pi05" else "zscore",
            **changes,
        },
    )


def assert_equal_tensors(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
