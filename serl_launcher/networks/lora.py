"""Low-rank adaptation of frozen linear layers (LoRA, arXiv:2106.09685) in openpi's form.

openpi factors attention projections per head: the query projection has one pair of factors per head, the output
projection one pair per head on its input side. The base weight keeps its name, so that a state dict with factors is
the plain one plus `lora_a` and `lora_b`.

Legend: G groups (heads, or 1), I inputs of a group, O outputs of a group, R rank.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from serl_launcher.config.tuning import LoraConfig
from serl_launcher.errors import ConfigError
from serl_launcher.networks.gemma import GemmaAttention

LORA_NAMES = ("lora_a", "lora_b")
OPENPI_STD = 0.01

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


class LoraLinear(nn.Linear):
    """y = W x + b + scale * B A x with W and b frozen; A and B act per group of inputs or of outputs."""

    def __init__(
        self, base: nn.Linear, *, rank: int, scale: float, in_groups: int = 1, out_groups: int = 1, zero: bool = True
    ) -> None:
        """Takes over the weight of `base`.

        Args:
            base: Layer to adapt; not to be used any more.
            rank: Of each group's factors.
            scale: Of the update.
            in_groups: Equal parts of the input with factors of their own; their updates are added.
            out_groups: Equal parts of the output with factors of their own. One of the two must be 1.
            zero: Whether B starts at zero; else both factors are drawn from N(0, 0.01).
        """
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.in_groups, self.out_groups = scale, in_groups, out_groups
        groups = in_groups * out_groups
        device = base.weight.device
        a = torch.empty(groups, base.in_features // in_groups, rank, device=device)
        b = torch.zeros(groups, rank, base.out_features // out_groups, device=device)
        nn.init.normal_(a, std=a.shape[1] ** -0.5 if zero else OPENPI_STD)
        if not zero:
            nn.init.normal_(b, std=OPENPI_STD)
        self.lora_a: Float[Tensor, "G I R"] = nn.Parameter(a)
        self.lora_b: Float[Tensor, "G R O"] = nn.Parameter(b)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the adapted layer's output, in the dtype of the frozen layer's."""
        base = F.linear(input, self.weight, self.bias)
        a, b = self.lora_a.to(base.dtype), self.lora_b.to(base.dtype)
        x = input.to(base.dtype)
        if self.in_groups > 1:
            inner = torch.einsum("...gi,gir->...gr", x.unflatten(-1, (self.in_groups, -1)), a)
            update = inner.flatten(-2) @ b.flatten(0, 1)
        else:
            inner = x @ a.permute(1, 0, 2).flatten(1)
            update = torch.einsum("...gr,gro->...go", inner.unflatten(-1, (len(a), -1)), b).flatten(-2)
        return base + self.scale * update

    def merged_weight(self) -> Float[Tensor, "out in"]:
        """Returns the weight of the plain layer that does the same, in the dtype of the frozen weight."""
        pattern = "gir,gro->ogi" if self.in_groups > 1 else "gir,gro->goi"
        update = torch.einsum(pattern, self.lora_a.float(), self.lora_b.float()).reshape(self.weight.shape)
        return (self.weight.float() + self.scale * update).to(self.weight.dtype)


def apply_lora_(network: nn.Module, config: LoraConfig) -> None:
    """Puts factors on the linear layers that `config` names and freezes the rest of their streams.

    Raises:
        ConfigError: The network lacks the stream or a target.
    """
    for name, rank, alpha in (
        ("language_model", config.language_rank, config.language_alpha),
        ("gemma_expert.model", config.expert_rank, config.expert_alpha),
    ):
        if rank:
            stream = _stream(network, name)
            stream.requires_grad_(requires_grad=False)
            _adapt_(stream, config, rank=rank, alpha=alpha)


def lora_layers(network: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Yields the adapted layers with their names."""
    return ((name, module) for name, module in network.named_modules() if isinstance(module, LoraLinear))


def merged_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict of the network without factors that does the same; other tensors share memory."""
    state = network.state_dict()
    for name, layer in lora_layers(network):
        state[f"{name}.weight"] = layer.merged_weight().detach()
        for factor in LORA_NAMES:
            del state[f"{name}.{factor}"]
    return state


def merge_(network: nn.Module) -> None:
    """Replaces every adapted layer by the plain one that does the same; weights train again."""
    for name, layer in list(lora_layers(network)):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(layer.merged_weight().detach()), layer.bias
        network.set_submodule(name, plain)


def trainable_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors that training changes, by name; they share memory with the network."""
    return {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}


def load_trainable_(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies what `trainable_state_dict` returned into a network that was built and tuned alike.

    Raises:
        ConfigError: A name or a shape does not fit.
    """
    own = trainable_state_dict(network)
    problems = sorted(own.keys() ^ weights.keys())
    problems += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if problems:
        raise ConfigError(
            f"The trained weights do not fit the network ({len(problems)} problems), among them: "
            f"{', '.join(problems[:8])}. Build it with the policy.tuning they were trained with."
        )
    for name, tensor in own.items():
        tensor.copy_(weights[name])


def _stream(network: nn.Module, name: str) -> nn.Module:
    found = next((module for path, module in network.named_modules() if path.endswith(name)), None)
    if found is None:
        raise ConfigError(
            f"policy.tuning.lora wants factors in {name!r}, which {type(network).__name__} does not have. "
            "Leave the rank at 0."
        )
    return found


def _adapt_(stream: nn.Module, config: LoraConfig, *, rank: int, alpha: float) -> None:
    wanted = (_ATTENTION if "attn" in config.targets else ()) + (_FEED_FORWARD if "ffn" in config.targets else ())
    layers = [(name, m) for name, m in stream.named_modules() if name.split(".")[-1] in wanted]
    missing = set(wanted) - {name.split(".")[-1] for name, _ in layers}
    if missing:
        raise ConfigError(
            f"policy.tuning.lora.targets needs layers called {sorted(missing)}, which this network does not have."
        )
    attention_scale = alpha / (rank**0.5 if config.rank_stabilized else rank)
    for name, base in layers:
        if not isinstance(base, nn.Linear) or isinstance(base, LoraLinear):
            raise ConfigError(f"LoRA adapts plain linear layers, {name} is a {type(base).__name__}. Merge it first.")
        kind = name.split(".")[-1]
        heads = _num_heads(stream, name, base) if kind in _ATTENTION else 1
        in_groups, out_groups = (heads, 1) if kind == "o_proj" else (1, heads)
        adapted = LoraLinear(
            base, rank=rank, scale=attention_scale if kind in _ATTENTION else 1.0, in_groups=in_groups,
            out_groups=out_groups, zero=config.init == "zero",
        )  # fmt: skip
        stream.set_submodule(name, adapted)


def _num_heads(stream: nn.Module, name: str, base: nn.Linear) -> int:
    """Number of heads on the projection's own side: of queries, or of keys and values."""
    attention = stream.get_submodule(name.rpartition(".")[0])
    assert isinstance(attention, GemmaAttention)
    head_dim = attention.config.head_dim
    width = base.in_features if name.endswith("o_proj") else base.out_features
    return width // head_dim
