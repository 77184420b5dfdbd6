"""Writes a policy's weights as openpi's JAX trainer does: leaves by hand, arrays by tensorstore."""

import json

import numpy as np
import tensorstore

LM = "paligemma_with_expert.paligemma.model.language_model."
EX = "paligemma_with_expert.gemma_expert.model."
VT = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear."


def jax_leaves(network):
    """Returns openpi's leaves, float32, from the inverse of each transform, written with einsum and reshape."""
    config = network.config
    weights = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    leaves = {"PaliGemma/llm/embedder/input_embedding": weights[f"{LM}embed_tokens.weight"]}
    leaves |= _stream(weights, LM, "", config.language, adaptive=False)
    leaves |= _stream(weights, EX, "_1", config.expert, adaptive=config.name == "pi05")
    leaves |= _vision(weights, config.vision)
    for name in weights:
        if not name.startswith("paligemma_with_expert"):
            head, _, kind = name.rpartition(".")
            leaves[f"{head}/{'kernel' if kind == 'weight' else 'bias'}"] = weights[name].T
    return leaves


def _stream(weights, stream, suffix, config, *, adaptive):
    depth, heads, kv_heads, width = config.depth, config.num_heads, config.num_kv_heads, config.width

    def stack(name):
        return np.stack([weights[f"{stream}layers.{i}.{name}"] for i in range(depth)])

    query = stack("self_attn.q_proj.weight").reshape(depth, heads, config.head_dim, width)
    key, value = (
        stack(f"self_attn.{name}.weight").reshape(depth, kv_heads, config.head_dim, width)
        for name in ("k_proj", "v_proj")
    )
    output = stack("self_attn.o_proj.weight").reshape(depth, width, heads, config.head_dim)
    gate, up = stack("mlp.gate_proj.weight"), stack("mlp.up_proj.weight")
    base = "PaliGemma/llm/layers/"
    leaves = {
        f"{base}attn/q_einsum{suffix}/w": np.einsum("lnhd->lndh", query),
        f"{base}attn/kv_einsum{suffix}/w": np.stack(
            [np.einsum("lkhd->lkdh", key), np.einsum("lkhd->lkdh", value)], axis=1
        ),
        f"{base}attn/attn_vec_einsum{suffix}/w": np.einsum("ldnh->lnhd", output),
        f"{base}mlp{suffix}/gating_einsum": np.stack([gate.swapaxes(1, 2), up.swapaxes(1, 2)], axis=1),
        f"{base}mlp{suffix}/linear": stack("mlp.down_proj.weight").swapaxes(1, 2),
    }
    for jax, ours in (("pre_attention_norm", "input_layernorm"), ("pre_ffw_norm", "post_attention_layernorm")):
        if adaptive:
            leaves[f"{base}{jax}{suffix}/Dense_0/kernel"] = stack(f"{ours}.dense.weight").swapaxes(1, 2)
            leaves[f"{base}{jax}{suffix}/Dense_0/bias"] = stack(f"{ours}.dense.bias")
        else:
            leaves[f"{base}{jax}{suffix}/scale"] = stack(f"{ours}.weight")
    if adaptive:
        leaves[f"PaliGemma/llm/final_norm{suffix}/Dense_0/kernel"] = weights[f"{stream}norm.dense.weight"].T
        leaves[f"PaliGemma/llm/final_norm{suffix}/Dense_0/bias"] = weights[f"{stream}norm.dense.bias"]
    else:
        leaves[f"PaliGemma/llm/final_norm{suffix}/scale"] = weights[f"{stream}norm.weight"]
    return leaves


def _vision(weights, config):
    depth, heads, width = config.depth, config.num_heads, config.width

    def stack(name):
        return np.stack([weights[f"{VT}encoder.layers.{i}.{name}"] for i in range(depth)])

    base = "PaliGemma/img/"
    block = f"{base}Transformer/encoderblock/"
    attention = f"{block}MultiHeadDotProductAttention_0/"
    leaves = {
        f"{base}embedding/kernel": np.einsum("oihw->hwio", weights[f"{VT}embeddings.patch_embedding.weight"]),
        f"{base}embedding/bias": weights[f"{VT}embeddings.patch_embedding.bias"],
        f"{base}pos_embedding": weights[f"{VT}embeddings.position_embedding.weight"][None],
        f"{base}Transformer/encoder_norm/scale": weights[f"{VT}post_layernorm.weight"],
        f"{base}Transformer/encoder_norm/bias": weights[f"{VT}post_layernorm.bias"],
        f"{base}head/kernel": weights[f"{PROJECTOR}weight"].T,
        f"{base}head/bias": weights[f"{PROJECTOR}bias"],
        f"{attention}out/kernel": stack("self_attn.out_proj.weight").swapaxes(1, 2).reshape(depth, heads, -1, width),
        f"{attention}out/bias": stack("self_attn.out_proj.bias"),
    }
    for jax, ours in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        kernel = stack(f"self_attn.{ours}.weight").swapaxes(1, 2)
        leaves[f"{attention}{jax}/kernel"] = kernel.reshape(depth, width, heads, -1)
        leaves[f"{attention}{jax}/bias"] = stack(f"self_attn.{ours}.bias").reshape(depth, heads, -1)
    for number in (0, 1):
        leaves[f"{block}LayerNorm_{number}/scale"] = stack(f"layer_norm{number + 1}.weight")
        leaves[f"{block}LayerNorm_{number}/bias"] = stack(f"layer_norm{number + 1}.bias")
        leaves[f"{block}MlpBlock_0/Dense_{number}/kernel"] = stack(f"mlp.fc{number + 1}.weight").swapaxes(1, 2)
        leaves[f"{block}MlpBlock_0/Dense_{number}/bias"] = stack(f"mlp.fc{number + 1}.bias")
    return leaves


def write_orbax(leaves, params):
    """Writes leaves (paths below `params`, `/` between keys) as orbax 0.11 does: zarr arrays in one OCDBT store."""
    params.mkdir(parents=True)
    tree = {}
    # One commit: as many as there are arrays would wait for the disk each time.
    transaction = tensorstore.Transaction()
    context = tensorstore.Context({"file_io_sync": False})
    for path, array in leaves.items():
        keys = ["params", *path.split("/"), "value"]
        tree[str(tuple(keys))] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
        store = {"driver": "ocdbt", "base": f"file://{params}/", "path": ".".join(keys) + "/"}
        spec = {"driver": "zarr", "kvstore": store, "metadata": {"shape": array.shape, "chunks": array.shape}}
        target = tensorstore.open(
            spec, create=True, dtype=array.dtype, transaction=transaction, context=context
        ).result()
        target.write(np.ascontiguousarray(array)).result()
    transaction.commit_async().result()
    metadata = {
        "tree_metadata": tree,
        "use_ocdbt": True,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
    }
    (params / "_METADATA").write_text(json.dumps(metadata))
