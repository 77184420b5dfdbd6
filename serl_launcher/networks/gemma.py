"""One Gemma stream (arXiv:2403.08295) with the parameter names of the published π0 checkpoints.

A stream is run over its own tokens and may attend to keys and values that another stream made. In π0 the prefix (images
and text) never sees the suffix, so the two streams of the mixture can be run one after the other with the same result
as the joint attention of the paper.

Legend: B batch, T tokens, P earlier tokens, D width, K key-value heads, N heads, h head width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serl_launcher.config.policy import GemmaConfig

ROPE_MAX_WAVELENGTH = 10_000.0

KeyValue = tuple[Float[Tensor, "B K P h"], Float[Tensor, "B K P h"]]


class GemmaRMSNorm(nn.Module):
    """Root-mean-square norm in float32; scales by 1 + weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns the normalised tokens in the input's dtype."""
        return F.rms_norm(x_BTD.float(), self.weight.shape, 1.0 + self.weight.float(), eps=1e-6).to(x_BTD.dtype)


class GemmaAttention(nn.Module):
    """Attention with few key-value heads and rotary positions."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.config = config
        self.q_proj = nn.Linear(config.width, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.width, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.width, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.width, bias=False)

    def key_value(self, x_BTD: Float[Tensor, "B T D"], rope: tuple[Tensor, Tensor]) -> KeyValue:
        """Returns the tokens' own keys (rotated) and values."""
        return rotate(self._split(self.k_proj(x_BTD)), rope), self._split(self.v_proj(x_BTD))

    def forward(
        self,
        x_BTD: Float[Tensor, "B T D"],
        rope: tuple[Tensor, Tensor],
        own: KeyValue,
        *,
        earlier: KeyValue | None,
        mask: Bool[Tensor, "B 1 T S"],
    ) -> Float[Tensor, "B T D"]:
        """Attends from the tokens to `earlier` keys and values followed by their own."""
        query = rotate(self._split(self.q_proj(x_BTD)), rope)
        key, value = own if earlier is None else (torch.cat(pair, dim=2) for pair in zip(earlier, own, strict=True))
        repeats = self.config.num_heads // self.config.num_kv_heads
        if repeats > 1:
            key, value = (_repeat_heads(x, repeats) for x in (key, value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.o_proj(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "B T Nh"]) -> Float[Tensor, "B N T h"]:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)


class GemmaMlp(nn.Module):
    """Gated tanh-GELU."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_dim, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_dim, bias=False)
        self.down_proj = nn.Linear(config.mlp_dim, config.width, bias=False)

    def forward(self, x_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns the transformed tokens."""
        return self.down_proj(F.gelu(self.gate_proj(x_BTD), approximate="tanh") * self.up_proj(x_BTD))


class GemmaLayer(nn.Module):
    """One block of one stream."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.self_attn = GemmaAttention(config)
        self.mlp = GemmaMlp(config)
        self.input_layernorm = GemmaRMSNorm(config.width)
        self.post_attention_layernorm = GemmaRMSNorm(config.width)

    def forward(
        self,
        x_BTD: Float[Tensor, "B T D"],
        rope: tuple[Tensor, Tensor],
        *,
        mask: Bool[Tensor, "B 1 T S"],
        earlier: KeyValue | None = None,
        keys_only: bool = False,
    ) -> tuple[Float[Tensor, "B T D"], KeyValue]:
        """Returns the block's output and its own keys and values; with `keys_only` the input comes back untouched."""
        normed = self.input_layernorm(x_BTD)
        own = self.self_attn.key_value(normed, rope)
        if keys_only:
            return x_BTD, own
        x_BTD = x_BTD + self.self_attn(normed, rope, own, earlier=earlier, mask=mask)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD)), own


class GemmaModel(nn.Module):
    """A stack of blocks with a final norm; the embedding exists only where there is a vocabulary."""

    def __init__(self, config: GemmaConfig, vocab_size: int | None) -> None:
        super().__init__()
        self.config = config
        if vocab_size is not None:
            self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(GemmaLayer(config) for _ in range(config.depth))
        self.norm = GemmaRMSNorm(config.width)

    def embed(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns token embeddings times sqrt(width)."""
        return self.embed_tokens(tokens) * self.config.width**0.5

    def prefill(
        self, x_BTD: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"], mask: Bool[Tensor, "B 1 T T"]
    ) -> tuple[list[KeyValue], Float[Tensor, "B T D"]]:
        """Returns every layer's keys and values, and the tokens that enter the last layer.

        Nobody attends to the last layer's output, so it is not computed.
        """
        rope = rope_table(positions, self.config.head_dim, x_BTD.dtype)
        cache = []
        for number, layer in enumerate(self.layers, start=1):
            x_BTD, own = layer(x_BTD, rope, mask=mask, keys_only=number == len(self.layers))
            cache.append(own)
        return cache, x_BTD

    def forward(
        self,
        x_BTD: Float[Tensor, "B T D"],
        positions: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B 1 T S"],
        cache: list[KeyValue],
    ) -> Float[Tensor, "B T D"]:
        """Returns the normalised output of tokens that attend to a prefilled stream and to themselves."""
        rope = rope_table(positions, self.config.head_dim, x_BTD.dtype)
        for layer, earlier in zip(self.layers, cache, strict=True):
            x_BTD, _ = layer(x_BTD, rope, mask=mask, earlier=earlier)
        return self.norm(x_BTD)


def rope_table(positions: Int[Tensor, "B T"], head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine, [B, 1, T, h/2], of rotary positions (arXiv:2104.09864)."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() / ROPE_MAX_WAVELENGTH**exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Float[Tensor, "B N T h"], rope: tuple[Tensor, Tensor]) -> Float[Tensor, "B N T h"]:
    """Rotates the two halves of every head by its position."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _repeat_heads(x: Float[Tensor, "B K S h"], repeats: int) -> Float[Tensor, "B N S h"]:
    return x[:, :, None].expand(-1, -1, repeats, -1, -1).flatten(1, 2)
