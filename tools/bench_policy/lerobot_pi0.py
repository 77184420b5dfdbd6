"""LeRobot 0.4.4's π0 at any size on the transformers of PyPI, holding our weights.

LeRobot demands a fork of transformers. What the fork changes for π0 is put on here, around the stock classes, so that
the work they do is what the fork does: norms that return a gate, a cache that is read without being extended, image
features that are not scaled, and the module whose presence is checked.
"""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.pi0 import ModelInputs, Pi0
from serl_launcher.policies.formats.names import to_published


class _Norm(nn.Module):
    """Gemma's norm as the fork has it, written as it is there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, cond: None = None) -> tuple[Tensor, None]:
        """Returns the normalised tokens and no gate."""
        variance = torch.mean(torch.square(x.float()), dim=-1, keepdim=True)
        normed = x * torch.rsqrt(variance + 1e-6)
        return (normed * (1.0 + self.weight.float())).to(x.dtype), None


class LerobotPi0:
    """LeRobot's network, called with our inputs."""

    def __init__(self, network: Pi0) -> None:
        """Builds it in the sizes of `network` with its weights."""
        with _sizes_of(network.config) as module:
            self.model = module.PI0Pytorch(module.PI0Config(**_settings(network.config)))
        weights = to_published({k: v.detach().clone() for k, v in network.state_dict().items()}, both_names=True)
        self.model.load_state_dict(weights)

    def sample(self, inputs: ModelInputs, noise: Tensor, num_steps: int) -> Tensor:
        """Returns actions [B, H, A] for noise [B, H, A]."""
        with _as_the_fork():
            return self.model.sample_actions(*_arguments(inputs), noise=noise, num_steps=num_steps)

    def loss(self, inputs: ModelInputs, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Returns the mean flow-matching error over all dimensions."""
        with _as_the_fork():
            return self.model(*_arguments(inputs), actions, noise=noise, time=time).mean()


def _arguments(inputs: ModelInputs) -> tuple:
    images, valid = inputs.images.unbind(1), inputs.image_valid.unbind(1)
    return list(images), list(valid), inputs.tokens, inputs.token_valid, inputs.state


def _settings(config: PolicyConfig) -> dict[str, Any]:
    size = config.vision.image_size
    return {
        "chunk_size": config.horizon,
        "n_action_steps": config.horizon,
        "max_state_dim": config.max_state_dim,
        "max_action_dim": config.max_action_dim,
        "image_resolution": (size, size),
        "tokenizer_max_length": config.max_token_len,
        "device": "cpu",
    }


@contextlib.contextmanager
def _as_the_fork() -> Iterator[None]:
    """Inside, stock transformers behaves as LeRobot's fork does where π0 calls it."""
    from transformers.models.gemma import modeling_gemma
    from transformers.models.paligemma import modeling_paligemma

    with (
        mock.patch.object(modeling_gemma, "_gated_residual", _residual, create=True),
        mock.patch.object(modeling_gemma.GemmaModel, "forward", _gemma_forward),
        mock.patch.object(modeling_paligemma.PaliGemmaModel, "get_image_features", _image_features),
    ):
        yield


# Any: LeRobot's module, whose classes have no types of ours.
@contextlib.contextmanager
def _sizes_of(config: PolicyConfig) -> Iterator[Any]:
    """Inside, LeRobot's module builds networks of our sizes; yields the module."""
    from transformers.models import siglip

    check = types.ModuleType("transformers.models.siglip.check")
    vars(check)["check_whether_transformers_replace_is_installed_correctly"] = lambda: True
    sys.modules[check.__name__] = check  # Stays: LeRobot looks for it whenever it builds a network.
    with mock.patch.object(siglip, "check", check, create=True):
        module = importlib.import_module("lerobot.policies.pi0.modeling_pi0")
        paligemma, expert = _resized(module, config)
        with (
            mock.patch.object(module, "get_gemma_config", lambda variant: _variant(module, config, variant)),
            mock.patch.object(module, "PaliGemmaForConditionalGeneration", paligemma),
            mock.patch.object(module, "GemmaForCausalLM", expert),
        ):
            yield module


def _variant(module: Any, config: PolicyConfig, variant: str) -> Any:
    sizes = config.language if variant == "gemma_2b" else config.expert
    return module.GemmaConfig(
        width=sizes.width, depth=sizes.depth, mlp_dim=sizes.mlp_dim, num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads, head_dim=sizes.head_dim,
    )  # fmt: skip


def _resized(module: Any, config: PolicyConfig) -> tuple[type, type]:
    sizes = config

    class PaliGemma(module.PaliGemmaForConditionalGeneration):
        def __init__(self, config: Any) -> None:
            vision = config.vision_config
            vision.hidden_size, vision.num_hidden_layers = sizes.vision.width, sizes.vision.depth
            vision.intermediate_size, vision.num_attention_heads = sizes.vision.mlp_dim, sizes.vision.num_heads
            vision.image_size, vision.patch_size = sizes.vision.image_size, sizes.vision.patch_size
            vision.projection_dim = config.projection_dim = sizes.language.width
            config.text_config.vocab_size = sizes.vocab_size
            super().__init__(config)
            _put_norms_(self.model.language_model)

    class Expert(module.GemmaForCausalLM):
        def __init__(self, config: Any) -> None:
            config.vocab_size = sizes.vocab_size
            super().__init__(config)
            _put_norms_(self.model)

    return PaliGemma, Expert


def _put_norms_(model: Any) -> None:
    width = model.config.hidden_size
    for layer in model.layers:
        layer.input_layernorm, layer.post_attention_layernorm = _Norm(width), _Norm(width)
    model.norm = _Norm(width)


def _residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    return x + branch if gate is None else x + branch * gate


# Any: a method of transformers' PaliGemmaModel.
def _image_features(self: Any, pixel_values: Tensor) -> Tensor:
    return self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)


# Any: a method of transformers' GemmaModel, with the arguments that LeRobot gives it.
def _gemma_forward(self: Any, **given: Any) -> types.SimpleNamespace:
    """Runs one stream alone: fills a new cache, or reads one that stays as it is."""
    from transformers.models.gemma import modeling_gemma

    own, earlier, mask = [], given["past_key_values"], given["attention_mask"]
    x = given["inputs_embeds"]
    cos, sin = self.rotary_emb(x, given["position_ids"])
    for number, layer in enumerate(self.layers):
        attention = layer.self_attn
        normed, gate = layer.input_layernorm(x)
        shape = (*normed.shape[:2], -1, attention.head_dim)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (projection(normed).view(shape).transpose(1, 2) for projection in projections)
        query, key = modeling_gemma.apply_rotary_pos_emb(query, key, cos, sin)
        own.append((key, value))
        if earlier is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(earlier[number], (key, value), strict=True))
        attended, _ = modeling_gemma.eager_attention_forward(attention, query, key, value, mask, attention.scaling)
        x = _residual(x, attention.o_proj(attended.flatten(2)), gate)
        normed, gate = layer.post_attention_layernorm(x)
        x = _residual(x, layer.mlp(normed), gate)
    return types.SimpleNamespace(last_hidden_state=self.norm(x)[0], past_key_values=own if given["use_cache"] else None)
