"""The least time a sampler's call can take: every multiplication once, every weight read as often as it must be.

Matrix products and attention are counted; norms, activations and copies are not. The language model and the vision
tower read their weights once per call, the action expert once per step, whatever the number of chunks.
"""

from dataclasses import dataclass

from torch import nn

from serl_launcher.config.policy import GemmaConfig, PolicyConfig
from serl_launcher.networks.pi0 import ModelInputs, Pi0


@dataclass(frozen=True, slots=True)
class Floor:
    """Work that cannot be avoided."""

    flop: float
    """Floating-point operations; a multiplication with its addition counts two."""
    weight_bytes: float
    """Bytes of weights that pass from the device's memory."""

    def milliseconds(self, *, tflops: float, terabytes_per_s: float) -> float:
        """Returns the larger of the times for arithmetic and for reading, in ms: they may overlap."""
        return 1e3 * max(self.flop / (tflops * 1e12), self.weight_bytes / (terabytes_per_s * 1e12))


def sampling_floor(network: Pi0, inputs: ModelInputs, *, num_draws: int, num_steps: int) -> Floor:
    """Returns the floor of `sample` for these inputs; prompt padding that every sample has is not counted."""
    config = network.config
    batch, cameras = inputs.images.shape[:2]
    patches = (config.vision.image_size // config.vision.patch_size) ** 2
    prefix = cameras * patches + int(inputs.token_valid.sum(1).max())
    language, expert = config.language, config.expert
    prefix_macs = _stream_macs(language, prefix, prefix, depth=language.depth - 1) + prefix * _key_value(language)
    context = prefix + (config.name == "pi0")
    step_macs = num_draws * _stream_macs(expert, config.horizon, context + config.horizon, depth=expert.depth)
    macs = batch * (_vision_macs(config, cameras) + prefix_macs + num_steps * step_macs)
    paligemma = network.paligemma_with_expert.paligemma
    embedding = paligemma.model.language_model.embed_tokens.weight
    last = language.depth - 1
    unused = sum(
        p.numel() * p.element_size()
        for name, p in paligemma.model.language_model.layers[last].named_parameters()
        if "k_proj" not in name and "v_proj" not in name
    )
    once = _bytes(paligemma) - embedding.numel() * embedding.element_size() - unused
    per_step = _bytes(network.paligemma_with_expert.gemma_expert)
    return Floor(2.0 * macs, once + num_steps * per_step)


def lerobot_flop(config: PolicyConfig, *, cameras: int, num_draws: int, num_steps: int) -> float:
    """Returns what LeRobot 0.4.4 computes for the same actions, in floating-point operations.

    It has one prefix per draw, with the padding of the prompt and with the last layer whole; the state token passes
    through the expert in every step, and so does the time (twice the width, for every action, in pi0).
    """
    vision, language, expert = config.vision, config.language, config.expert
    patches = (vision.image_size // vision.patch_size) ** 2
    prefix = cameras * patches + config.max_token_len
    suffix = config.horizon + (config.name == "pi0")
    once = _vision_macs(config, cameras) + _stream_macs(language, prefix, prefix, depth=language.depth)
    of_time = 3 * expert.width**2 * config.horizon if config.name == "pi0" else 3 * expert.width**2 * 2 * expert.depth
    step = _stream_macs(expert, suffix, prefix + suffix, depth=expert.depth) + of_time
    return 2.0 * num_draws * (once + num_steps * step)


def _vision_macs(config: PolicyConfig, cameras: int) -> int:
    vision = config.vision
    patches = (vision.image_size // vision.patch_size) ** 2
    per_patch = vision.depth * (4 * vision.width**2 + 2 * vision.width * vision.mlp_dim + 2 * vision.width * patches)
    return (
        cameras * patches * (per_patch + 3 * vision.patch_size**2 * vision.width + vision.width * config.language.width)
    )


def _stream_macs(config: GemmaConfig, tokens: int, attended: int, *, depth: int) -> int:
    heads = config.num_heads * config.head_dim
    dense = 2 * config.width * heads + _key_value(config) + 3 * config.width * config.mlp_dim
    return depth * tokens * (dense + 2 * heads * attended)


def _key_value(config: GemmaConfig) -> int:
    return 2 * config.width * config.num_kv_heads * config.head_dim


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
