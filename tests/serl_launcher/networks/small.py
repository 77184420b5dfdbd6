"""A small π0 network with inputs, for tests of what is built around it."""

import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.networks.build import build_network
from serl_launcher.networks.pi0 import ModelInputs


def small_config(name="pi0", **changes):
    gemma = GemmaConfig(width=32, depth=3, mlp_dim=48, num_heads=4, num_kv_heads=2, head_dim=8)
    settings = {
        "name": name,
        "vision": VisionConfig(image_size=16, patch_size=8, width=32, depth=2, mlp_dim=48, num_heads=2),
        "language": gemma,
        "expert": GemmaConfig(width=24, depth=3, mlp_dim=40, num_heads=4, num_kv_heads=2, head_dim=8),
        "vocab_size": 64,
        "max_token_len": 12,
        "horizon": 6,
        "max_state_dim": 5,
        "max_action_dim": 4,
        "num_steps": 4,
    }
    return PolicyConfig(**{**settings, **changes})


def small_network(name="pi0", seed=0, **changes):
    """Every parameter is drawn, also those that start at zero: what is zero hides mistakes."""
    torch.manual_seed(seed)
    network = build_network(small_config(name, **changes))
    network.initialize_()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if "norm" in key:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def small_inputs(batch=3, cameras=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 12, (batch, 1), generator=generator)
    return ModelInputs(
        images=2 * torch.rand((batch, cameras, 3, 16, 16), generator=generator) - 1,
        image_valid=torch.ones(batch, cameras, dtype=torch.bool),
        tokens=torch.randint(3, 64, (batch, 12), generator=generator),
        token_valid=torch.arange(12)[None] < lengths,
        state=torch.randn((batch, 5), generator=generator),
    )
