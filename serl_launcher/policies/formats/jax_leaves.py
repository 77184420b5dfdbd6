"""Leaves of openpi's JAX π0 and π0.5 to our tensors: one table, and the merge of LoRA factors.

Legend: L layers, N heads, K key-value heads, h head width, D width, F mlp width.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.names import EMBEDDING
from serl_launcher.policies.formats.sizes import PUBLISHED_NORMALIZATION, PUBLISHED_TOKEN_LEN

Leaves = dict[str, Tensor]
Rule = tuple[str, Callable[[Tensor], Tensor]]
"""Name of our tensor ({i} for the layer, which is then the leaf's first axis), and what to do with the leaf."""

_VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
_PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear."
_STREAMS = {
    "": "paligemma_with_expert.paligemma.model.language_model.",
    "_1": "paligemma_with_expert.gemma_expert.model.",
}
"""Suffix of a JAX module's name to our stream."""
_LLM, _IMAGE = "PaliGemma/llm/", "PaliGemma/img/"
_BLOCK, _ATTENTION = f"{_IMAGE}Transformer/encoderblock/", "MultiHeadDotProductAttention_0/"
_HEADS = {
    "pi0": ("state_proj", "action_in_proj", "action_time_mlp_in", "action_time_mlp_out", "action_out_proj"),
    "pi05": ("action_in_proj", "time_mlp_in", "time_mlp_out", "action_out_proj"),
}


def convert(leaves: Leaves) -> dict[str, Tensor]:
    """Returns our tensors in the type they are stored in; LoRA factors are merged.

    Raises:
        CheckpointError: A leaf is missing, or one is left over; all of them are listed.
    """
    merged = merge_lora(leaves)
    rules = _rules(_model_name(leaves))
    problems = [f"missing {path}" for path in sorted(rules.keys() - merged.keys())]
    problems += [f"unexpected {path}" for path in sorted(merged.keys() - rules.keys())]
    if problems:
        shown = "\n  ".join(problems)
        raise CheckpointError(f"The leaves are not those of a π0 or π0.5 ({len(problems)} problems):\n  {shown}")
    weights: dict[str, Tensor] = {}
    for path, targets in rules.items():
        for template, transform in targets:
            if "{i}" in template:
                weights |= {template.format(i=i): transform(layer) for i, layer in enumerate(merged[path])}
            else:
                weights[template] = transform(merged[path])
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def infer_config(leaves: Leaves) -> PolicyConfig:
    """Returns the sizes; what no leaf tells (horizon, steps) has openpi's default."""
    missing = [path for path in _rules(_model_name(leaves)) if path not in leaves]
    if missing:
        raise CheckpointError(f"Expected an openpi checkpoint of π0 or π0.5; it lacks the leaves {missing}.")
    name, shapes = _model_name(leaves), {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    patch_size, _, _, width = shapes[f"{_IMAGE}embedding/kernel"]
    max_action_dim = shapes["action_in_proj/kernel"][0]
    return PolicyConfig(
        name=name,
        vision=VisionConfig(
            image_size=round(shapes[f"{_IMAGE}pos_embedding"][1] ** 0.5) * patch_size,
            patch_size=patch_size,
            width=width,
            depth=shapes[f"{_BLOCK}LayerNorm_0/scale"][0],
            mlp_dim=shapes[f"{_BLOCK}MlpBlock_0/Dense_0/kernel"][2],
            num_heads=shapes[f"{_BLOCK}{_ATTENTION}query/kernel"][2],
        ),
        language=_stream_sizes(shapes, ""),
        expert=_stream_sizes(shapes, "_1"),
        vocab_size=shapes[f"{_LLM}embedder/input_embedding"][0],
        max_token_len=PUBLISHED_TOKEN_LEN[name],
        max_state_dim=shapes["state_proj/kernel"][0] if name == "pi0" else max_action_dim,
        max_action_dim=max_action_dim,
        normalization=PUBLISHED_NORMALIZATION[name],
    )


def merge_lora(leaves: Leaves) -> Leaves:
    """Returns the leaves with every pair of LoRA factors added to what it adapts (openpi's scale is 1).

    Raises:
        CheckpointError: A factor has no partner or adapts nothing.
    """
    merged = {path: leaf for path, leaf in leaves.items() if "lora_" not in path}
    for path, factor in leaves.items():
        if not path.endswith("lora_a"):
            continue
        # An attention leaf is <module>/w beside <module>/lora_a; an ffn leaf is <name> beside <name>_lora_a.
        stem = path.removesuffix("lora_a")
        target = f"{stem}w" if stem.endswith("/") else stem.removesuffix("_")
        other = leaves.get(f"{stem}lora_b")
        if other is None or target not in merged:
            raise CheckpointError(f"The LoRA factor {path} has no partner {stem}lora_b, or {target} is missing.")
        base = merged[target]
        merged[target] = (base.float() + factor.float() @ other.float()).to(base.dtype)
    return merged


def _model_name(leaves: Leaves) -> str:
    return "pi05" if "time_mlp_in/kernel" in leaves else "pi0"


def _stream_sizes(shapes: dict[str, tuple[int, ...]], suffix: str) -> GemmaConfig:
    depth, num_heads, width, head_dim = shapes[f"{_LLM}layers/attn/q_einsum{suffix}/w"]
    return GemmaConfig(
        width=width,
        depth=depth,
        mlp_dim=shapes[f"{_LLM}layers/mlp{suffix}/linear"][1],
        num_heads=num_heads,
        num_kv_heads=shapes[f"{_LLM}layers/attn/kv_einsum{suffix}/w"][2],
        head_dim=head_dim,
    )


def _rules(name: str) -> dict[str, list[Rule]]:
    """Returns every leaf of a model and the tensors it becomes."""
    rules = {**_vision_rules(), f"{_LLM}embedder/input_embedding": [(EMBEDDING, _same)]}
    for suffix, stream in _STREAMS.items():
        rules |= _attention_rules(suffix, stream)
        rules |= _norm_rules(suffix, stream, is_adaptive=name == "pi05" and suffix == "_1")
    for head in _HEADS[name]:
        rules |= _linear(head, head)
    return rules


def _attention_rules(suffix: str, stream: str) -> dict[str, list[Rule]]:
    layer, jax = f"{stream}layers.{{i}}.", f"{_LLM}layers/"
    attention, mlp = f"{layer}self_attn.", f"{layer}mlp."
    return {
        f"{jax}attn/q_einsum{suffix}/w": [(f"{attention}q_proj.weight", _heads_out)],
        f"{jax}attn/kv_einsum{suffix}/w": [
            (f"{attention}k_proj.weight", partial(_part, of=0, then=_heads_out)),
            (f"{attention}v_proj.weight", partial(_part, of=1, then=_heads_out)),
        ],
        f"{jax}attn/attn_vec_einsum{suffix}/w": [(f"{attention}o_proj.weight", _heads_in)],
        f"{jax}mlp{suffix}/gating_einsum": [
            (f"{mlp}gate_proj.weight", partial(_part, of=0, then=_transposed)),
            (f"{mlp}up_proj.weight", partial(_part, of=1, then=_transposed)),
        ],
        f"{jax}mlp{suffix}/linear": [(f"{mlp}down_proj.weight", _transposed)],
    }


def _norm_rules(suffix: str, stream: str, *, is_adaptive: bool) -> dict[str, list[Rule]]:
    norms = {
        f"{_LLM}layers/pre_attention_norm{suffix}": f"{stream}layers.{{i}}.input_layernorm",
        f"{_LLM}layers/pre_ffw_norm{suffix}": f"{stream}layers.{{i}}.post_attention_layernorm",
        f"{_LLM}final_norm{suffix}": f"{stream}norm",
    }
    rules: dict[str, list[Rule]] = {}
    for jax, ours in norms.items():
        plain = {f"{jax}/scale": [_keep(ours, "weight")]}
        rules |= _linear(f"{jax}/Dense_0", f"{ours}.dense") if is_adaptive else plain
    return rules


def _vision_rules() -> dict[str, list[Rule]]:
    layer = f"{_VISION}encoder.layers.{{i}}."
    rules: dict[str, list[Rule]] = {
        f"{_IMAGE}embedding/kernel": [(f"{_VISION}embeddings.patch_embedding.weight", lambda w: w.permute(3, 2, 0, 1))],
        f"{_IMAGE}embedding/bias": [_keep(f"{_VISION}embeddings.patch_embedding", "bias")],
        f"{_IMAGE}pos_embedding": [(f"{_VISION}embeddings.position_embedding.weight", lambda w: w[0])],
        f"{_BLOCK}{_ATTENTION}out/kernel": [(f"{layer}self_attn.out_proj.weight", _heads_in)],
        f"{_BLOCK}{_ATTENTION}out/bias": [_keep(f"{layer}self_attn.out_proj", "bias")],
        **_linear(f"{_BLOCK}MlpBlock_0/Dense_0", f"{layer}mlp.fc1"),
        **_linear(f"{_BLOCK}MlpBlock_0/Dense_1", f"{layer}mlp.fc2"),
        **_linear(f"{_IMAGE}head", _PROJECTOR.removesuffix(".")),
    }
    for jax, ours in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        rules[f"{_BLOCK}{_ATTENTION}{jax}/kernel"] = [
            (f"{layer}self_attn.{ours}.weight", lambda w: w.flatten(1).T),
        ]
        rules[f"{_BLOCK}{_ATTENTION}{jax}/bias"] = [(f"{layer}self_attn.{ours}.bias", lambda b: b.flatten())]
    norms = {
        f"{_BLOCK}LayerNorm_0": f"{layer}layer_norm1",
        f"{_BLOCK}LayerNorm_1": f"{layer}layer_norm2",
        f"{_IMAGE}Transformer/encoder_norm": f"{_VISION}post_layernorm",
    }
    for jax, ours in norms.items():
        rules |= {f"{jax}/scale": [_keep(ours, "weight")], f"{jax}/bias": [_keep(ours, "bias")]}
    return rules


def _linear(jax: str, ours: str) -> dict[str, list[Rule]]:
    """Returns the rules of a dense layer: its kernel is our weight transposed."""
    return {f"{jax}/kernel": [(f"{ours}.weight", _transposed)], f"{jax}/bias": [_keep(ours, "bias")]}


def _keep(module: str, parameter: str) -> Rule:
    return (f"{module}.{parameter}", _same)


def _same(leaf: Tensor) -> Tensor:
    return leaf


def _transposed(leaf: Tensor) -> Tensor:
    return leaf.T


def _heads_out(leaf: Tensor) -> Tensor:
    """[N, D, h] to [N h, D]."""
    return leaf.permute(0, 2, 1).flatten(0, 1)


def _heads_in(leaf: Tensor) -> Tensor:
    """[N, h, D] to [D, N h]."""
    return leaf.flatten(0, 1).T


def _part(leaf: Tensor, *, of: int, then: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies a rule to one of the stacked parts."""
    return then(leaf[of])
