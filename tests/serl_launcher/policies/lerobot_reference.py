"""LeRobot 0.4.4's π0 and π0.5 on the transformers of PyPI, at any size, as the reference of our own.

They demand a fork of transformers. What the fork changes is put on here: adaptive norms with a gate on the residual
branch, a cache that is read without being extended, embeddings and image features that are not scaled, patches that
are embedded in float32 and then cast, and the module whose presence LeRobot checks. Sizes that LeRobot fixes (vision
tower, vocabulary, variants) are taken from our config.
"""

import contextlib
import importlib
import sys
import types
import warnings

import pytest
import torch
from torch import nn


class Norm(nn.Module):
    """Gemma's norm as the fork has it: returns the tokens and a gate, which is None without a condition."""

    def __init__(self, width, condition_width):
        super().__init__()
        if condition_width is None:
            self.weight = nn.Parameter(torch.zeros(width))
        else:
            self.dense = nn.Linear(condition_width, 3 * width)

    def forward(self, x, cond=None):
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        if cond is None or not hasattr(self, "dense"):
            return (normed * (1 + self.weight.float())).to(x.dtype), None
        modulation = self.dense(cond)
        scale, shift, gate = (modulation[:, None] if x.dim() == 3 else modulation).chunk(3, dim=-1)
        return (normed * (1 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)


def gated_residual(x, y, gate):
    if x is None or y is None:
        return y if x is None else x
    return x + y if gate is None else x + y * gate


def gemma_forward(self, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
                  use_cache=None, adarms_cond=None, **_):  # fmt: skip
    """One stream alone: fills a new cache, or reads one that stays as it is."""
    from transformers.models.gemma import modeling_gemma

    own = []
    x = inputs_embeds.to(self.layers[0].self_attn.q_proj.weight.dtype)
    cos, sin = self.rotary_emb(x, position_ids)
    for number, layer in enumerate(self.layers):
        attention = layer.self_attn
        normed, gate = layer.input_layernorm(x, adarms_cond)
        shape = (*normed.shape[:2], -1, attention.head_dim)
        query, key, value = (
            projection(normed).view(shape).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = modeling_gemma.apply_rotary_pos_emb(query, key, cos, sin)
        own.append((key, value))
        if past_key_values is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(past_key_values[number], (key, value), strict=True))
        attended, _ = modeling_gemma.eager_attention_forward(
            attention, query, key, value, attention_mask, attention.scaling
        )
        x = gated_residual(x, attention.o_proj(attended.flatten(2)), gate)
        normed, gate = layer.post_attention_layernorm(x, adarms_cond)
        x = gated_residual(x, layer.mlp(normed), gate)
    x, _ = self.norm(x, adarms_cond)
    return types.SimpleNamespace(last_hidden_state=x, past_key_values=own if use_cache else None)


def image_features(self, pixel_values):
    return self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)


def with_fork_norms(model):
    """Replaces the norms of a freshly built Gemma stack."""
    condition = model.config.adarms_cond_dim if getattr(model.config, "use_adarms", False) else None
    for layer in model.layers:
        layer.input_layernorm = Norm(model.config.hidden_size, condition)
        layer.post_attention_layernorm = Norm(model.config.hidden_size, condition)
    model.norm = Norm(model.config.hidden_size, condition)


@contextlib.contextmanager
def lerobot_on_stock_transformers(config):
    """Inside, LeRobot's π0 and π0.5 have the sizes of our `config`; yields their modeling modules by name."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        check = types.ModuleType("transformers.models.siglip.check")
        check.check_whether_transformers_replace_is_installed_correctly = lambda: True
        from transformers.models import siglip
        from transformers.models.gemma import modeling_gemma
        from transformers.models.paligemma import modeling_paligemma

        patch.setitem(sys.modules, check.__name__, check)
        patch.setattr(siglip, "check", check, raising=False)
        patch.setattr(modeling_gemma, "_gated_residual", gated_residual, raising=False)
        patch.setattr(modeling_gemma.GemmaModel, "forward", gemma_forward)
        patch.setattr(modeling_paligemma.PaliGemmaModel, "get_image_features", image_features)
        modules = {
            name: importlib.import_module(f"lerobot.policies.{name}.modeling_{name}") for name in ("pi0", "pi05")
        }
        for module in modules.values():
            _resize(patch, module, config)
        yield modules


def _resize(patch, module, config):
    def gemma_config(variant):
        sizes = config.language if variant == "gemma_2b" else config.expert
        return module.GemmaConfig(
            width=sizes.width, depth=sizes.depth, mlp_dim=sizes.mlp_dim, num_heads=sizes.num_heads,
            num_kv_heads=sizes.num_kv_heads, head_dim=sizes.head_dim,
        )  # fmt: skip

    class PaliGemma(module.PaliGemmaForConditionalGeneration):
        def __init__(self, **given):
            config_of_transformers = given["config"]
            vision = config_of_transformers.vision_config
            vision.hidden_size, vision.num_hidden_layers = config.vision.width, config.vision.depth
            vision.intermediate_size, vision.num_attention_heads = config.vision.mlp_dim, config.vision.num_heads
            vision.image_size, vision.patch_size = config.vision.image_size, config.vision.patch_size
            vision.projection_dim = config_of_transformers.projection_dim = config.language.width
            config_of_transformers.text_config.vocab_size = config.vocab_size
            super().__init__(config_of_transformers)
            with_fork_norms(self.model.language_model)
            vision = self.model.vision_tower.vision_model
            vision.embeddings.register_forward_hook(
                lambda _module, _arguments, output: output.to(vision.post_layernorm.weight.dtype)
            )

    class Expert(module.GemmaForCausalLM):
        def __init__(self, config):
            config.vocab_size = vocab_size
            super().__init__(config)
            with_fork_norms(self.model)

    vocab_size = config.vocab_size
    patch.setattr(module, "get_gemma_config", gemma_config)
    patch.setattr(module, "PaliGemmaForConditionalGeneration", PaliGemma)
    patch.setattr(module, "GemmaForCausalLM", Expert)
