"""The sizes of a π0 or π0.5, read off the shapes of its tensors."""

import re
from collections.abc import Mapping

from torch import Tensor

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.names import EMBEDDING

_VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
_LANGUAGE = "paligemma_with_expert.paligemma.model.language_model."
_EXPERT = "paligemma_with_expert.gemma_expert.model."
SIGLIP_HEAD_DIM = 72
"""Of SigLIP So400m; no shape tells the number of its heads."""
PUBLISHED_TOKEN_LEN = {"pi0": 48, "pi05": 200}
PUBLISHED_NORMALIZATION = {"pi0": "zscore", "pi05": "quantile"}


def model_name(names: Mapping[str, object]) -> str:
    """Returns `pi05` where the tensors have π0.5's time MLP, else `pi0`."""
    return "pi05" if "time_mlp_in.weight" in names else "pi0"


def infer_config(weights: Mapping[str, Tensor]) -> PolicyConfig:
    """Returns the sizes of published weights; what no tensor tells has the published value.

    Raises:
        CheckpointError: A tensor that tells a size is missing, or the heads of a small vision tower are unknown.
    """
    shapes = _Shapes(weights)
    name = model_name(weights)
    embedding, patches = shapes[EMBEDDING], shapes[f"{_VISION}embeddings.patch_embedding.weight"]
    side = round(shapes[f"{_VISION}embeddings.position_embedding.weight"][0] ** 0.5)
    max_action_dim = shapes["action_out_proj.weight"][0]
    return PolicyConfig(
        name=name,
        vision=VisionConfig(
            image_size=side * patches[2],
            patch_size=patches[2],
            width=patches[0],
            depth=_depth(weights, f"{_VISION}encoder."),
            mlp_dim=shapes[f"{_VISION}encoder.layers.0.mlp.fc1.weight"][0],
            num_heads=_vision_heads(patches[0]),
        ),
        language=_gemma(shapes, weights, _LANGUAGE),
        expert=_gemma(shapes, weights, _EXPERT),
        vocab_size=embedding[0],
        max_token_len=PUBLISHED_TOKEN_LEN[name],
        max_state_dim=shapes["state_proj.weight"][1] if name == "pi0" else max_action_dim,
        max_action_dim=max_action_dim,
        normalization=PUBLISHED_NORMALIZATION[name],
    )


class _Shapes:
    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._weights:
            raise CheckpointError(f"Expected a π0 or π0.5 checkpoint; it lacks {name}, so its sizes are unknown.")
        return tuple(self._weights[name].shape)


def _gemma(shapes: _Shapes, weights: Mapping[str, Tensor], stream: str) -> GemmaConfig:
    layer = f"{stream}layers.0."
    query, key = shapes[f"{layer}self_attn.q_proj.weight"], shapes[f"{layer}self_attn.k_proj.weight"]
    return GemmaConfig(
        width=query[1],
        depth=_depth(weights, stream),
        mlp_dim=shapes[f"{layer}mlp.gate_proj.weight"][0],
        num_heads=query[0] // key[0],
        num_kv_heads=1,
        head_dim=key[0],
    )


def _depth(weights: Mapping[str, Tensor], stack: str) -> int:
    layer = re.compile(re.escape(stack) + r"layers\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(layer.match, weights) if match), default=-1)


def _vision_heads(width: int) -> int:
    if width % SIGLIP_HEAD_DIM:
        raise CheckpointError(
            f"The vision tower is {width} wide, not a multiple of SigLIP's {SIGLIP_HEAD_DIM} per head: the number of "
            "its heads is unknown. Keep the file hiors.json that was written beside the weights."
        )
    return width // SIGLIP_HEAD_DIM
