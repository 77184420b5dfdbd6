"""What is measured: sizes of the network, and one batch of inputs for each."""

import dataclasses

import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.networks.build import build_network
from serl_launcher.networks.pi0 import ModelInputs, Pi0

PROMPT_TOKENS = {"pi0": 12, "pi05": 68}
"""Of the prompt; the rest of the slots is padding. A short instruction; π0.5 has a state of 14 numbers beside it."""


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


def _scaled(width: int, depth: int, image_size: int = 112) -> PolicyConfig:
    """Returns the published proportions of vision tower, language model and expert at another width and depth."""
    language = _gemma(width, depth, 8 * width, width // 8)
    return _config(image_size, (width // 2, 3 * depth // 2), language, _gemma(width // 2, depth, 2 * width, width // 8))


_TINY = _config(56, (64, 2), _gemma(64, 4, 128, 16), _gemma(64, 4, 128, 16))
SIZES = {
    # Hardly any arithmetic: what a call costs besides. Language model and expert are alike, as in pi0_tiny.
    "tiny": _TINY,
    "tiny-pi05": dataclasses.replace(_TINY, name="pi05", max_token_len=200, normalization="quantile"),
    # The published proportions (the language model six times the expert) at 1/16 and 1/8 of its width.
    "sixteenth": _scaled(128, 6),
    "eighth": _scaled(256, 6),
    # The published number of tokens (768 of images), hence the published ratio of prefix to suffix.
    "sixteenth-224": _scaled(128, 6, image_size=224),
    # The published depth, at 1/32 of its width.
    "deep": _scaled(64, 18),
    # config/policy/pi0_small.yaml: bound by the expert's arithmetic, which is the same for everybody.
    "small": _config(112, (256, 6), _gemma(384, 6, 1536, 64), _gemma(256, 6, 1024, 64)),
}
_SMALL_ONES = ("tiny", "tiny-pi05", "sixteenth", "sixteenth-224", "eighth", "deep")
ASKED = {
    "sample": {**dict.fromkeys(_SMALL_ONES, 2.0), "small": 1.0},
    "best-of-8": dict.fromkeys(SIZES, 4.0),
    "training step": dict.fromkeys(SIZES, 1.3),
}
"""Speed-ups that are wanted."""


def build(config: PolicyConfig, seed: int = 0) -> Pi0:
    """Returns a drawn network in which every weight matters."""
    torch.manual_seed(seed)
    network = build_network(config)
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
    valid = torch.arange(length).expand(batch, -1) < PROMPT_TOKENS[config.name]
    return ModelInputs(
        images=2 * torch.rand((batch, cameras, 3, size, size), generator=generator) - 1,
        image_valid=torch.ones(batch, cameras, dtype=torch.bool),
        tokens=torch.randint(3, config.vocab_size, (batch, length), generator=generator) * valid,
        token_valid=valid,
        state=torch.randn((batch, config.max_state_dim), generator=generator),
    )
