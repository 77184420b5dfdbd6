"""Three functions of the frozen network, written for the operators that torch runs fast on a CPU.

They compute what `scaled_dot_product_attention`, `gelu` and `rms_norm` compute, in float32. The seconds go into
transcendental functions and into temporaries that leave the cache: 2 ** x costs a third of e ** x and a sigmoid a sixth
of a tanh, and rows are attended in parts whose scores fit into the cache. (`make bench-policy` measures the whole.)

Legend: R rows, T tokens, S attended tokens, N heads that share one key-value head, h head width, F feed-forward width.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LOG2_E = math.log2(math.e)
"""Queries multiplied by it turn e ** score into 2 ** score."""
PART_SCORES = 2**17
"""Scores of one part: 512 KiB."""
MAX_SCORES = 2**20
"""Scores of one row from which torch's own attention is faster."""
_CUBIC = 0.044715
_STEEPNESS = 2.0 * math.sqrt(2.0 / math.pi)


def is_for(x: Tensor) -> bool:
    """Returns whether these functions are written for `x`: float32 on a CPU, neither compiled nor with gradients."""
    is_plain = x.device.type == "cpu" and x.dtype == torch.float32
    return is_plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def attend(
    query: Float[Tensor, "R T N h"], key: Float[Tensor, "R S h"], value: Float[Tensor, "R S h"]
) -> Float[Tensor, "R T Nh"]:
    """Returns softmax(key . query) . value to the base 2: queries carry the scale and `LOG2_E` already.

    Scores stand with the attended tokens first, so that the largest one and the sum are taken over whole lines.
    """
    rows, length, heads, width = query.shape
    queries = query.reshape(rows, length * heads, width).transpose(1, 2)
    values = value.transpose(1, 2)
    rows_at_once = max(1, PART_SCORES // (key.shape[1] * length * heads))
    parts = zip(*(x.split(rows_at_once) for x in (key, queries, values)), strict=True)
    attended = (
        torch.cat([_attend_part(*part) for part in parts])
        if rows > rows_at_once
        else (_attend_part(key, queries, values))
    )
    return attended.transpose(1, 2).reshape(rows, length, heads * width)


def _attend_part(
    key: Float[Tensor, "R S h"], queries: Float[Tensor, "R h TN"], values: Float[Tensor, "R h S"]
) -> Float[Tensor, "R h TN"]:
    weights = torch.bmm(key, queries)
    weights.sub_(weights.amax(1, keepdim=True)).exp2_()
    return torch.bmm(values, weights).div_(weights.sum(1, keepdim=True))


def gated_gelu(gate: Float[Tensor, "R T F"], up: Float[Tensor, "R T F"]) -> Float[Tensor, "R T F"]:
    """Returns tanh-GELU of `gate`, times `up`: x (1 + tanh u) / 2 is x times the sigmoid of 2 u."""
    slope = torch.addcmul(gate.new_tensor(_STEEPNESS), gate, gate, value=_STEEPNESS * _CUBIC)
    return slope.mul_(gate).sigmoid_().mul_(gate).mul_(up)


def rms_norm(x: Float[Tensor, "R T D"], epsilon: float) -> Float[Tensor, "R T D"]:
    """Returns x / sqrt(mean(x ** 2) + epsilon) in three passes instead of five."""
    root_mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
    return x / torch.hypot(root_mean_square, x.new_tensor(math.sqrt(epsilon)))
