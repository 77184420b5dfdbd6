"""What is measured: sizes of the network, and one batch of inputs for each."""

import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.networks.pi0 import ModelInputs, Pi0

PROMPT_TOKENS = 12
"""Of the prompt; the rest of the slots is padding, as with a short instruction."""


def _gemma(width: int, depth: int, mlp_dim: int, head_dim: int) -> GemmaConfig:
    # LeRobot's π0 is fixed to 8 heads.
    return GemmaConfig(width=width, depth=depth, mlp_dim=mlp_dim, num_heads=8, num_kv_heads=1, head_dim=head_dim)


def _config(image_size: int, vision: tuple[int, int], language: GemmaConfig, expert: GemmaConfig) -> PolicyConfig:
    width, depth = vision
    return PolicyConfig(
        vision=VisionConfig(
            image_size=image_size, patch_size=14, width=width, depth=depth, mlp_dim=4 * width, num_heads=4
        ),
        language=language,
        expert=expert,
        vocab_size=1024,
    )


def _scaled(width: int, depth: int) -> PolicyConfig:
    """Returns the published proportions of vision tower, language model and expert at another width and depth."""
    language = _gemma(width, depth, 8 * width, width // 8)
    return _config(112, (width // 2, 3 * depth // 2), language, _gemma(width // 2, depth, 2 * width, width // 8))


SIZES = {
    # Hardly any arithmetic: what a call costs besides. Language model and expert are alike, as in pi0_tiny.
    "tiny": _config(56, (64, 2), _gemma(64, 4, 128, 16), _gemma(64, 4, 128, 16)),
    # The published proportions (the language model six times the expert) at 1/16 and 1/8 of its width.
    "sixteenth": _scaled(128, 6),
    "eighth": _scaled(256, 6),
    # The published depth, at 1/32 of its width.
    "deep": _scaled(64, 18),
    # config/policy/pi0_small.yaml: bound by the expert's arithmetic, which is the same for everybody.
    "small": _config(112, (256, 6), _gemma(384, 6, 1536, 64), _gemma(256, 6, 1024, 64)),
}
ASKED = {
    "sample": {"tiny": 2.0, "sixteenth": 2.0, "eighth": 2.0, "deep": 2.0, "small": 1.0},
    "best-of-8": {"sixteenth": 4.0, "eighth": 4.0, "deep": 4.0},
    "training step": {"tiny": 1.3, "sixteenth": 1.3, "eighth": 1.3, "deep": 1.3, "small": 1.3},
}
"""Speed-ups that are wanted. Best-of-8 pays where the prefix is most of the work, as it is at the published size; where
the expert is as large as the language model, eight chunks are eight times its arithmetic for everybody."""


def build(config: PolicyConfig, seed: int = 0) -> Pi0:
    """Returns a drawn network in which every weight matters."""
    torch.manual_seed(seed)
    network = Pi0(config)
    network.initialize_()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs_for(config: PolicyConfig, *, batch: int, cameras: int, seed: int = 1) -> ModelInputs:
    """Returns drawn inputs with all cameras there and a short prompt."""
    generator = torch.Generator().manual_seed(seed)
    size, length = config.vision.image_size, config.max_token_len
    valid = torch.arange(length).expand(batch, -1) < PROMPT_TOKENS
    return ModelInputs(
        images=2 * torch.rand((batch, cameras, 3, size, size), generator=generator) - 1,
        image_valid=torch.ones(batch, cameras, dtype=torch.bool),
        tokens=torch.randint(3, config.vocab_size, (batch, length), generator=generator) * valid,
        token_valid=valid,
        state=torch.randn((batch, config.max_state_dim), generator=generator),
    )
