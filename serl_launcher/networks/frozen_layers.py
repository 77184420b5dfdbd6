"""Stacks of layers as `FrozenPi0` runs them: fused matrices, no modules, no gradients of weights.

Legend: R rows, T tokens, S attended tokens, D width, N heads, K key-value heads, h head width, F feed-forward width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from serl_launcher.config.policy import GemmaConfig
from serl_launcher.networks import cpu_kernels
from serl_launcher.networks.gemma import ROPE_MAX_WAVELENGTH, AdaptiveRMSNorm, GemmaLayer, GemmaModel, GemmaRMSNorm
from serl_launcher.networks.lora import LoraLinear
from serl_launcher.networks.siglip import SiglipLayer, SiglipVisionTransformer

_GROUPED_FROM = 128
"""Head width from which queries of one key-value head are stacked on a CPU; below, attention repeats the head."""

_SCALE = 1.0 / cpu_kernels.LOG2_E
"""Of attention: everything else is in the weights of the queries."""

Modulation = tuple[Tensor, Tensor, Tensor]
"""1 + scale, shift and gate of an adaptive norm, each [1, 1, D], [R, 1, D] or [R, T, D]."""


@dataclass(slots=True)
class FrozenLayer:
    """One Gemma block."""

    qkv: Float[Tensor, "(N+2K)h D"]
    out: Float[Tensor, "D Nh"]
    gate_up: Float[Tensor, "2F D"]
    down: Float[Tensor, "D F"]


class FrozenStream:
    """A Gemma stack over its own tokens, which may attend to earlier ones."""

    def __init__(self, model: GemmaModel, dtype: torch.dtype | None) -> None:
        """Copies the weights of `model`; matrices are cast to `dtype` if one is given."""
        self._config = config = model.config
        layers = [layer for layer in model.layers if isinstance(layer, GemmaLayer)]
        self._dtype: torch.dtype = layers[0].self_attn.q_proj.weight.dtype if dtype is None else dtype
        self._layers = [self._freeze(layer) for layer in layers]
        norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        norms.append(model.norm)
        self._adaptive = [norm for norm in norms if isinstance(norm, AdaptiveRMSNorm)]
        self._num_heads, self._num_kv = config.num_heads, config.num_kv_heads

    def _freeze(self, layer: GemmaLayer) -> FrozenLayer:
        attention, mlp = layer.self_attn, layer.mlp
        before, between = _scale(layer.input_layernorm), _scale(layer.post_attention_layernorm)
        head_dim = self._config.head_dim
        query, key = (_paired(_weight(p), head_dim) for p in (attention.q_proj, attention.k_proj))
        qkv = torch.cat([query * (head_dim**-0.5 * cpu_kernels.LOG2_E), key, _weight(attention.v_proj)])
        gate_up = torch.cat([_weight(mlp.gate_proj), _weight(mlp.up_proj)])
        parts = (qkv * before, _weight(attention.o_proj), gate_up * between, _weight(mlp.down_proj))
        return FrozenLayer(*(part.to(self._dtype).contiguous() for part in parts))

    def modulations(self, condition: Tensor) -> list[Modulation]:
        """Returns what every adaptive norm does under a condition [B, E] or [B, T, E]; empty where norms are plain."""
        result = []
        for norm in self._adaptive:
            scale, shift, gate = norm.modulation(condition).detach().float().chunk(3, -1)
            result.append((1.0 + scale, shift, gate.to(self._dtype)))
        return result

    def prefill(self, x_RTD: Tensor, freqs: Tensor, mask: Tensor | None) -> list[Float[Tensor, "R T 2K h"]]:
        """Returns every layer's keys and values; the last layer's output is needed by nobody and not computed."""
        cache = []
        for number, layer in enumerate(self._layers, start=1):
            q, kv = self._project(layer, _rms(x_RTD), freqs)
            cache.append(kv)
            if number < len(self._layers):
                x_RTD = x_RTD + F.linear(self._attend(q, kv, mask), layer.out)
                x_RTD = x_RTD + self._feed_forward(layer, _rms(x_RTD))
        return cache

    def extend(self, x_RTD: Tensor, freqs: Tensor, buffers: list[Tensor], mask: Tensor | None) -> None:
        """Writes the tokens' keys and values to the end of the buffers, which hold the earlier ones. Plain norms."""
        length = x_RTD.shape[1]
        for number, (layer, buffer) in enumerate(zip(self._layers, buffers, strict=True), start=1):
            q, kv = self._project(layer, _rms(x_RTD), freqs)
            buffer[:, -length:] = kv
            if number < len(self._layers):
                x_RTD = x_RTD + F.linear(self._attend(q, buffer, mask), layer.out)
                x_RTD = x_RTD + self._feed_forward(layer, _rms(x_RTD))

    def forward(
        self, x_RTD: Tensor, freqs: Tensor, buffers: list[Tensor], mask: Tensor | None, modulations: list[Modulation]
    ) -> Float[Tensor, "R T D"]:
        """Returns the normalised output of tokens that see the buffers, at whose end they stand themselves.

        Without gradients the buffers are overwritten in place.
        """
        length = x_RTD.shape[1]
        for number, (layer, buffer) in enumerate(zip(self._layers, buffers, strict=True)):
            before, between = modulations[2 * number : 2 * number + 2] if modulations else (None, None)
            q, kv = self._project(layer, _modulated(x_RTD, before), freqs)
            if torch.is_grad_enabled():
                kv = torch.cat([buffer[:, :-length], kv], 1)
            else:
                buffer[:, -length:] = kv
                kv = buffer
            x_RTD = _add(x_RTD, F.linear(self._attend(q, kv, mask), layer.out), before)
            x_RTD = _add(x_RTD, self._feed_forward(layer, _modulated(x_RTD, between)), between)
        return _modulated(x_RTD, modulations[-1] if modulations else None)

    def _project(self, layer: FrozenLayer, x_RTD: Tensor, freqs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rotated queries [R, T, N, h], and keys with values [R, T, 2K, h]."""
        width, heads = self._config.head_dim, self._num_heads + 2 * self._num_kv
        projected = F.linear(x_RTD, layer.qkv).unflatten(-1, (heads, width // 2, 2))
        rotated = _turned(projected.float(), freqs).flatten(-2).to(x_RTD.dtype)
        return rotated[:, :, : self._num_heads], rotated[:, :, self._num_heads :]

    def _attend(self, q: Tensor, kv: Tensor, mask: Tensor | None) -> Float[Tensor, "R T Nh"]:
        rows, length = q.shape[:2]
        if self._num_kv == 1 and mask is None and cpu_kernels.is_for(q) and _num_scores(q, kv) < cpu_kernels.MAX_SCORES:
            return cpu_kernels.attend(q, *kv.unbind(2))
        key, value = (part.transpose(1, 2) for part in kv.chunk(2, dim=2))
        query = q.transpose(1, 2)
        if self._num_kv == 1 and (q.shape[-1] < _GROUPED_FROM or q.device.type != "cpu"):
            key, value = (part.expand(-1, self._num_heads, -1, -1) for part in (key, value))
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=_SCALE)
        else:
            grouped = query.reshape(rows, self._num_kv, -1, q.shape[-1])
            attended = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=_SCALE)
            attended = attended.reshape(rows, self._num_heads, length, -1)
        return attended.transpose(1, 2).flatten(2)

    def _feed_forward(self, layer: FrozenLayer, x_RTD: Tensor) -> Tensor:
        gate, up = F.linear(x_RTD, layer.gate_up).chunk(2, -1)
        is_fast = cpu_kernels.is_for(gate)
        gated = cpu_kernels.gated_gelu(gate, up) if is_fast else F.gelu(gate, approximate="tanh") * up
        return F.linear(gated, layer.down)


class FrozenVision:
    """SigLIP and the projection of its patches; all cameras in one batch."""

    def __init__(self, tower: SiglipVisionTransformer, projector: nn.Linear, dtype: torch.dtype | None) -> None:
        """Copies the attention projections, shares the rest where no cast is asked for."""
        self._tower = tower
        self._dtype = tower.post_layernorm.weight.dtype if dtype is None else dtype
        layers = [layer for layer in tower.encoder.layers if isinstance(layer, SiglipLayer)]
        self._layers = [self._freeze(layer) for layer in layers]
        self._num_heads = layers[0].self_attn.num_heads
        self._last = [self._cast(p) for p in (tower.post_layernorm.weight, tower.post_layernorm.bias)]
        self._projector = [self._cast(p) for p in (projector.weight, projector.bias)]

    def _cast(self, parameter: Tensor) -> Tensor:
        return parameter.detach().to(self._dtype)

    def _freeze(self, layer: SiglipLayer) -> list[Tensor]:
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        fused = [torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections])]
        norms = [layer.layer_norm1.weight, layer.layer_norm1.bias, layer.layer_norm2.weight, layer.layer_norm2.bias]
        rest = [p for linear in (attention.out_proj, mlp.fc1, mlp.fc2) for p in (linear.weight, linear.bias)]
        return [self._cast(parameter) for parameter in (*fused, *norms, *rest)]

    def forward(self, images: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B P D"]:
        """Returns the tokens of all cameras, one camera after the other."""
        x = self._tower.embeddings(images.flatten(0, 1)).detach().to(self._dtype)
        for layer in self._layers:
            x = self._block(x, layer)
        tokens = F.linear(F.layer_norm(x, x.shape[-1:], *self._last, eps=1e-6), *self._projector)
        return tokens.unflatten(0, images.shape[:2]).flatten(1, 2)

    def _block(self, x: Tensor, layer: list[Tensor]) -> Tensor:
        w_qkv, b_qkv, scale1, shift1, scale2, shift2, w_out, b_out, w_1, b_1, w_2, b_2 = layer
        width = x.shape[-1:]
        normed = F.layer_norm(x, width, scale1, shift1, eps=1e-6)
        qkv = F.linear(normed, w_qkv, b_qkv).unflatten(-1, (3, self._num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + F.linear(attended, w_out, b_out)
        normed = F.layer_norm(x, width, scale2, shift2, eps=1e-6)
        return x + F.linear(F.gelu(F.linear(normed, w_1, b_1), approximate="tanh"), w_2, b_2)


def rope_factors(positions: Int[Tensor, "R T"], config: GemmaConfig) -> Tensor:
    """Returns complex factors [R, T, N + 2K, h / 2] that rotate queries and keys and leave values alone."""
    exponents = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32) / config.head_dim
    angles = positions[..., None, None].float() / ROPE_MAX_WAVELENGTH**exponents
    turning = torch.polar(torch.ones_like(angles), angles).expand(-1, -1, config.num_heads + config.num_kv_heads, -1)
    staying = torch.ones_like(turning[:, :, : config.num_kv_heads])
    return torch.cat([turning, staying], 2)


def _turned(pairs: Float[Tensor, "R T N h/2 2"], freqs: Tensor) -> Float[Tensor, "R T N h/2 2"]:
    if not torch.compiler.is_compiling():
        return torch.view_as_real(torch.view_as_complex(pairs) * freqs)
    # Compilers fuse real arithmetic, and have no code for complex numbers.
    (a, b), (cos, sin) = pairs.unbind(-1), torch.view_as_real(freqs).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1)


def _weight(layer: nn.Linear) -> Tensor:
    merged = layer.merged_weight() if isinstance(layer, LoraLinear) else layer.weight
    return merged.detach().float()


def _paired(weight: Tensor, head_dim: int) -> Tensor:
    """Orders the rows of every head so that the two numbers that a rotary position turns stand side by side."""
    halves = weight.unflatten(0, (-1, 2, head_dim // 2))
    return halves.transpose(1, 2).reshape(weight.shape)


def _scale(norm: nn.Module) -> Tensor | float:
    return 1.0 + norm.weight.detach().float() if isinstance(norm, GemmaRMSNorm) else 1.0


def _num_scores(q: Tensor, kv: Tensor) -> int:
    return q.shape[1] * q.shape[2] * kv.shape[1]


def _rms(x: Tensor) -> Tensor:
    return cpu_kernels.rms_norm(x, 1e-6) if cpu_kernels.is_for(x) else F.rms_norm(x, x.shape[-1:], eps=1e-6)


def _modulated(x: Tensor, modulation: Modulation | None) -> Tensor:
    if modulation is None:
        return _rms(x)
    scale, shift, _ = modulation
    return torch.addcmul(shift, _rms(x.float()), scale).to(x.dtype)


def _add(x: Tensor, branch: Tensor, modulation: Modulation | None) -> Tensor:
    return x + branch if modulation is None else torch.addcmul(x, branch, modulation[2])
