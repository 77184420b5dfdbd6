"""One Gemma stream (arXiv:2403.08295) with the parameter names of the published π0 checkpoints.

A stream is run over its own tokens and may attend to keys and values that another stream made. In π0 the prefix (images
and text) never sees the suffix, so the two streams of the mixture can be run one after the other with the same result
as the joint attention of the paper.

The norms of an action expert may be conditioned (adaptive RMSNorm of π0.5): they then take a vector per sample or per
token, and gate the residual branch that follows them.

Legend: B batch, T tokens, P earlier tokens, S attended tokens, D width, E width of the condition, K key-value heads,
N heads, h head width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serl_launcher.config.policy import GemmaConfig
from serl_launcher.networks.precision import uncast

ROPE_MAX_WAVELENGTH = 10_000.0

KeyValue = tuple[Float[Tensor, "B K P h"], Float[Tensor, "B K P h"]]


Gated = tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"] | None]
"""Normalised tokens, and what multiplies the residual branch computed from them (None: 1)."""


class GemmaRMSNorm(nn.Module):
    """Root-mean-square norm in float32; scales by 1 + weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Float[Tensor, "B T D"], condition: Tensor | None = None) -> Gated:
        """Returns the normalised tokens in the input's dtype, and no gate; there is nothing to condition."""
        normed = F.rms_norm(x_BTD.float(), self.weight.shape, 1.0 + self.weight.float(), eps=1e-6)
        return normed.to(x_BTD.dtype), None


class AdaptiveRMSNorm(nn.Module):
    """Root-mean-square norm in float32 whose scale, shift and gate are linear in a condition (π0.5).

    Fresh weights are zero, so that the gate closes every branch and a block starts as the identity.
    """

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(condition_width, 3 * width)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x_BTD: Float[Tensor, "B T D"], condition: Tensor | None = None) -> Gated:
        """Returns the tokens in the input's dtype, and the gate.

        Args:
            x_BTD: The residual stream.
            condition: [B, E], one for all tokens of a sample, or [B, T, E].
        """
        if condition is None:
            raise ValueError("An adaptive norm needs its condition (the embedded flow time); got None.")
        return self.modulate(x_BTD, self.modulation(condition))

    def modulation(self, condition: Float[Tensor, "B *T E"]) -> Float[Tensor, "B T 3D"]:
        """Returns scale, shift and gate side by side; T is 1 for one condition per sample."""
        modulation = uncast(self.dense, condition)
        return modulation if modulation.dim() == 3 else modulation[:, None]

    def modulate(self, x_BTD: Float[Tensor, "B T D"], modulation: Float[Tensor, "B T 3D"]) -> Gated:
        """Returns the normalised tokens and the gate for a modulation that is computed already."""
        scale, shift, gate = modulation.float().chunk(3, dim=-1)
        normed = F.rms_norm(x_BTD.float(), x_BTD.shape[-1:], eps=1e-6)
        return (normed * (1.0 + scale) + shift).to(x_BTD.dtype), gate.to(x_BTD.dtype)


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

    def __init__(self, config: GemmaConfig, condition_width: int | None = None) -> None:
        super().__init__()
        self.self_attn = GemmaAttention(config)
        self.mlp = GemmaMlp(config)
        self.input_layernorm = make_norm(config.width, condition_width)
        self.post_attention_layernorm = make_norm(config.width, condition_width)

    def forward(
        self,
        x_BTD: Float[Tensor, "B T D"],
        rope: tuple[Tensor, Tensor],
        *,
        mask: Bool[Tensor, "B 1 T S"],
        earlier: KeyValue | None = None,
        condition: Tensor | None = None,
        keys_only: bool = False,
    ) -> tuple[Float[Tensor, "B T D"], KeyValue]:
        """Returns the block's output and its own keys and values; with `keys_only` the input comes back untouched."""
        normed, gate = self.input_layernorm(x_BTD, condition)
        own = self.self_attn.key_value(normed, rope)
        if keys_only:
            return x_BTD, own
        x_BTD = add_gated(x_BTD, self.self_attn(normed, rope, own, earlier=earlier, mask=mask), gate)
        normed, gate = self.post_attention_layernorm(x_BTD, condition)
        return add_gated(x_BTD, self.mlp(normed), gate), own


class GemmaModel(nn.Module):
    """A stack of blocks with a final norm; the embedding exists only where there is a vocabulary."""

    def __init__(self, config: GemmaConfig, vocab_size: int | None, condition_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        if vocab_size is not None:
            self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(GemmaLayer(config, condition_width) for _ in range(config.depth))
        self.norm = make_norm(config.width, condition_width)

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
        condition: Tensor | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the normalised output of tokens that attend to a prefilled stream and to themselves.

        Args:
            x_BTD: Tokens.
            positions: Of the tokens, after those of the prefilled stream.
            mask: True where a token (row) may see a prefilled one or one of its own stream (columns).
            cache: What `prefill` returned.
            condition: Of adaptive norms, [B, E] or [B, T, E].
        """
        rope = rope_table(positions, self.config.head_dim, x_BTD.dtype)
        for layer, earlier in zip(self.layers, cache, strict=True):
            x_BTD, _ = layer(x_BTD, rope, mask=mask, earlier=earlier, condition=condition)
        return self.norm(x_BTD, condition)[0]


def make_norm(width: int, condition_width: int | None) -> GemmaRMSNorm | AdaptiveRMSNorm:
    """Returns the plain norm, or with a condition the adaptive one."""
    return GemmaRMSNorm(width) if condition_width is None else AdaptiveRMSNorm(width, condition_width)


def add_gated(
    x_BTD: Float[Tensor, "B T D"], branch_BTD: Float[Tensor, "B T D"], gate: Tensor | None
) -> Float[Tensor, "B T D"]:
    """Returns the residual sum, the branch multiplied by its gate."""
    return x_BTD + branch_BTD if gate is None else x_BTD + branch_BTD * gate


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
