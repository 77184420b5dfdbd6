"""LeRobot 0.4.4's π0 and π0.5 at any size on the transformers of PyPI: what ours is compared with.

LeRobot demands a fork of transformers. What the fork changes is put on here, around the stock classes, so that they
compute what the fork computes and do the work that the fork does: adaptive norms with a gate on the residual branch, a
cache that is read without being extended, embeddings and image features that are not scaled, patches that are embedded
in float32 and then cast, and the module whose presence LeRobot checks. Sizes that LeRobot fixes (vision tower,
vocabulary, variants) are taken from our config.
"""

import contextlib
import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.pi0 import ModelInputs, Pi0
from serl_launcher.policies.formats.names import to_published

CLASSES = {"pi0": "PI0", "pi05": "PI05"}
"""LeRobot's prefix for the classes of a policy."""


class LerobotNetwork:
    """LeRobot's network with the weights of one of ours, called with our inputs."""

    def __init__(self, network: Pi0, *, dtype: str = "float32") -> None:
        """Builds it in the sizes of `network`, in `float32` or, what LeRobot does not keep in that, `bfloat16`."""
        config = self._config = network.config
        with lerobot_on_stock_transformers(config) as modules:
            self.model = build(modules[config.name], config, dtype=dtype)
        weights = to_published({k: v.detach().clone() for k, v in network.state_dict().items()}, both_names=True)
        self.model.load_state_dict(weights)

    def sample(self, inputs: ModelInputs, noise: Tensor, num_steps: int) -> Tensor:
        """Returns actions [B, H, A] for noise [B, H, A]."""
        with as_the_fork():
            return self.model.sample_actions(*arguments_of(self._config, inputs), noise=noise, num_steps=num_steps)

    def loss(self, inputs: ModelInputs, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Returns the mean flow-matching error over all dimensions."""
        with as_the_fork():
            return self.model(*arguments_of(self._config, inputs), actions, noise=noise, time=time).mean()


# Any: LeRobot's modules and classes have no types of ours.
def build(module: Any, config: PolicyConfig, **settings: Any) -> Any:
    """Returns a fresh network of LeRobot's; call it within `lerobot_on_stock_transformers`."""
    name, size = CLASSES[config.name], config.vision.image_size
    theirs = getattr(module, f"{name}Config")(
        chunk_size=config.horizon, n_action_steps=config.horizon, max_state_dim=config.max_state_dim,
        max_action_dim=config.max_action_dim, image_resolution=(size, size),
        tokenizer_max_length=config.max_token_len, device="cpu", **settings,
    )  # fmt: skip
    return getattr(module, f"{name}Pytorch")(theirs)


def arguments_of(config: PolicyConfig, inputs: ModelInputs) -> tuple:
    """Returns what LeRobot's networks take for our inputs."""
    images, valid = inputs.images.unbind(1), inputs.image_valid.unbind(1)
    arguments = (list(images), list(valid), inputs.tokens, inputs.token_valid)
    return (*arguments, inputs.state) if config.name == "pi0" else arguments


@contextlib.contextmanager
def lerobot_on_stock_transformers(config: PolicyConfig) -> Iterator[dict[str, Any]]:
    """Inside, LeRobot's π0 and π0.5 have the sizes of our `config`; yields their modeling modules by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models import siglip

        check = types.ModuleType("transformers.models.siglip.check")
        vars(check)["check_whether_transformers_replace_is_installed_correctly"] = lambda: True
        sys.modules[check.__name__] = check  # Stays: LeRobot looks for it whenever it builds a network.
        with mock.patch.object(siglip, "check", check, create=True), as_the_fork():
            modules = {name: importlib.import_module(f"lerobot.policies.{name}.modeling_{name}") for name in CLASSES}
            with contextlib.ExitStack() as patches:
                for module in modules.values():
                    _resize(patches, module, config)
                yield modules


@contextlib.contextmanager
def as_the_fork() -> Iterator[None]:
    """Inside, stock transformers behaves as LeRobot's fork does where π0 and π0.5 call it."""
    from transformers.models.gemma import modeling_gemma
    from transformers.models.paligemma import modeling_paligemma

    with (
        mock.patch.object(modeling_gemma, "_gated_residual", _gated_residual, create=True),
        mock.patch.object(modeling_gemma.GemmaModel, "forward", _gemma_forward),
        mock.patch.object(modeling_paligemma.PaliGemmaModel, "get_image_features", _image_features),
    ):
        yield


class _Norm(nn.Module):
    """Gemma's norm as the fork has it: returns the tokens and a gate, which is None without a condition."""

    def __init__(self, width: int, condition_width: int | None) -> None:
        super().__init__()
        if condition_width is None:
            self.weight = nn.Parameter(torch.zeros(width))
        else:
            self.dense = nn.Linear(condition_width, 3 * width)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns the normalised tokens and the gate, in the type of `x`."""
        variance = torch.mean(torch.square(x.float()), dim=-1, keepdim=True)
        normed = x * torch.rsqrt(variance + 1e-6)
        if cond is None or not hasattr(self, "dense"):
            return (normed * (1.0 + self.weight.float())).to(x.dtype), None
        modulation = self.dense(cond)
        scale, shift, gate = (modulation[:, None] if x.dim() == 3 else modulation).chunk(3, dim=-1)
        return (normed * (1 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)


def _put_norms_(model: Any) -> None:
    config = model.config
    condition = config.adarms_cond_dim if getattr(config, "use_adarms", False) else None
    for layer in model.layers:
        layer.input_layernorm = _Norm(config.hidden_size, condition)
        layer.post_attention_layernorm = _Norm(config.hidden_size, condition)
    model.norm = _Norm(config.hidden_size, condition)


def _gated_residual(x: Tensor | None, branch: Tensor | None, gate: Tensor | None) -> Tensor | None:
    if x is None or branch is None:
        return branch if x is None else x
    return x + branch if gate is None else x + branch * gate


# Any: a method of transformers' PaliGemmaModel.
def _image_features(self: Any, pixel_values: Tensor) -> Tensor:
    return self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)


# Any: a method of transformers' GemmaModel, with the arguments that LeRobot gives it.
def _gemma_forward(self: Any, **given: Any) -> types.SimpleNamespace:
    """Runs one stream alone: fills a new cache, or reads one that stays as it is."""
    from transformers.models.gemma import modeling_gemma

    own, earlier, mask = [], given["past_key_values"], given["attention_mask"]
    condition = given.get("adarms_cond")
    x = given["inputs_embeds"].to(self.layers[0].self_attn.q_proj.weight.dtype)
    cos, sin = self.rotary_emb(x, given["position_ids"])
    for number, layer in enumerate(self.layers):
        attention = layer.self_attn
        normed, gate = layer.input_layernorm(x, condition)
        shape = (*normed.shape[:2], -1, attention.head_dim)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (projection(normed).view(shape).transpose(1, 2) for projection in projections)
        query, key = modeling_gemma.apply_rotary_pos_emb(query, key, cos, sin)
        own.append((key, value))
        if earlier is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(earlier[number], (key, value), strict=True))
        attended, _ = modeling_gemma.eager_attention_forward(attention, query, key, value, mask, attention.scaling)
        x = _gated_residual(x, attention.o_proj(attended.flatten(2)), gate)
        normed, gate = layer.post_attention_layernorm(x, condition)
        x = _gated_residual(x, layer.mlp(normed), gate)
    x, _ = self.norm(x, condition)
    return types.SimpleNamespace(last_hidden_state=x, past_key_values=own if given["use_cache"] else None)


def _resize(patches: contextlib.ExitStack, module: Any, sizes: PolicyConfig) -> None:
    """Has a modeling module build networks of our sizes until `patches` are undone."""

    def variant(name: str) -> Any:
        stream = sizes.language if name == "gemma_2b" else sizes.expert
        return module.GemmaConfig(
            width=stream.width, depth=stream.depth, mlp_dim=stream.mlp_dim, num_heads=stream.num_heads,
            num_kv_heads=stream.num_kv_heads, head_dim=stream.head_dim,
        )  # fmt: skip

    class PaliGemma(module.PaliGemmaForConditionalGeneration):
        def __init__(self, config: Any) -> None:
            _resize_config_(config, sizes)
            super().__init__(config)
            _put_norms_(self.model.language_model)
            tower = self.model.vision_tower.vision_model
            tower.embeddings.register_forward_hook(
                lambda _module, _arguments, output: output.to(tower.post_layernorm.weight.dtype)
            )

    class Expert(module.GemmaForCausalLM):
        def __init__(self, config: Any) -> None:
            config.vocab_size = sizes.vocab_size
            super().__init__(config)
            _put_norms_(self.model)

    for name, value in (
        ("get_gemma_config", variant),
        ("PaliGemmaForConditionalGeneration", PaliGemma),
        ("GemmaForCausalLM", Expert),
    ):
        patches.enter_context(mock.patch.object(module, name, value))


# Any: transformers' PaliGemmaConfig.
def _resize_config_(config: Any, sizes: PolicyConfig) -> None:
    vision = config.vision_config
    vision.hidden_size, vision.num_hidden_layers = sizes.vision.width, sizes.vision.depth
    vision.intermediate_size, vision.num_attention_heads = sizes.vision.mlp_dim, sizes.vision.num_heads
    vision.image_size, vision.patch_size = sizes.vision.image_size, sizes.vision.patch_size
    vision.projection_dim = config.projection_dim = sizes.language.width
    config.text_config.vocab_size = sizes.vocab_size
