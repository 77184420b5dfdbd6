"""A π0 or π0.5 network arranged for acting: the same numbers with a fraction of the operations.

- Projections of one input are one matrix (q, k, v; gate and up), plain norms' scales and LoRA factors are folded in.
- Rotary positions are one complex product over q, k and v together (rows of the matrices are ordered for it).
- Keys and values of the suffix are written behind those of the prefix into buffers made once per call.
- π0's state token sees neither actions nor time: it is a part of the prefix here.
- What depends on the flow time alone is computed once per time and kept: π0's time embedding becomes the bias of a
  matrix that takes the actions directly, π0.5's norm modulations are tables.
- No step asks the host for anything and all have the same shapes, so that a call can be one CUDA graph.

Legend: R rows (observations times draws), B observations, G draws, P prefix tokens, T tokens, S attended tokens,
H chunk horizon, A action width, D width, N heads, K key-value heads, h head width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from serl_launcher.networks.compiled import compiled
from serl_launcher.networks.frozen_layers import FrozenStream, FrozenVision, Modulation, rope_factors
from serl_launcher.networks.gemma import GemmaRMSNorm
from serl_launcher.networks.pi0 import ModelInputs, Pi0, time_embedding, without_padding
from serl_launcher.networks.pi05 import Pi05
from serl_launcher.networks.sampling import flow_times, sample_euler

_MAX_TIMES = 256
"""Flow times whose tables are kept."""


@dataclass(slots=True)
class FrozenPrefix:
    """What the actions of one batch of observations attend to."""

    cache: list[Float[Tensor, "B P 2K h"]]
    """Per layer: keys, then values; π0's state token stands last."""
    valid: Bool[Tensor, "B P"]
    is_dense: bool
    """Whether the host knows that every token is valid."""


@dataclass(slots=True)
class TimeTable:
    """What depends on the flow time alone."""

    bias: Tensor | None
    """π0: what the time adds to an embedded action, [1, D] or with one time per row [R, 1, D], per action [R, H, D]."""
    modulations: list[Modulation]
    """π0.5: of every norm of the expert, in the order of use."""


class FrozenPi0:
    """The frozen form of one network, whose weights must not change while it is used: some are shared, some folded."""

    def __init__(self, network: Pi0, *, dtype: torch.dtype | None = None) -> None:
        """Arranges the weights, in the network's precision or with matrices cast to `dtype`."""
        self.config = network.config
        paligemma = network.paligemma_with_expert.paligemma.model
        expert = network.paligemma_with_expert.gemma_expert.model
        self._network = network
        self._vision = FrozenVision(paligemma.vision_tower.vision_model, paligemma.multi_modal_projector.linear, dtype)
        embedding = paligemma.language_model.embed_tokens.weight.detach()
        self._embedding = embedding if dtype is None else embedding.to(dtype)
        self._language = FrozenStream(paligemma.language_model, dtype)
        self._expert = FrozenStream(expert, dtype)
        self._action_out = _detached(network.action_out_proj)
        if isinstance(expert.norm, GemmaRMSNorm):
            weight = self._action_out[0] * (1.0 + expert.norm.weight.detach().float())
            self._action_out = (weight, self._action_out[1])
        self._times: dict[float, TimeTable] = {}
        self._fold_action_heads()

    def _fold_action_heads(self) -> None:
        network = self._network
        self._action_in = _detached(network.action_in_proj)
        if isinstance(network, Pi05):
            return
        (w_in, b_in), (w_mix, b_mix) = self._action_in, _detached(network.action_time_mlp_in)
        width = w_in.shape[0]
        of_action, self._of_time = w_mix[:, :width].double(), w_mix[:, width:]
        self._action_in = ((of_action @ w_in.double()).float(), (of_action @ b_in.double() + b_mix).float())
        self._action_time_out = _detached(network.action_time_mlp_out)
        self._state_proj = _detached(network.state_proj)

    def encode(self, inputs: ModelInputs) -> FrozenPrefix:
        """Returns what the actions attend to; one pass, whatever number of actions is drawn from it."""
        inputs = without_padding(inputs)
        token_valid = inputs.token_valid
        on_cpu = token_valid.device.type == "cpu"
        is_dense = on_cpu and bool(token_valid.all()) and bool(inputs.image_valid.all())
        images = self._vision.forward(inputs.images)
        text = F.embedding(inputs.tokens, self._embedding) * self.config.language.width**0.5
        x_BPD = torch.cat([images, text.to(images.dtype)], 1)
        per_camera = images.shape[1] // inputs.images.shape[1]
        valid = torch.cat([inputs.image_valid.repeat_interleave(per_camera, 1), token_valid], 1)
        freqs = rope_factors(valid.cumsum(1) - 1, self.config.language)
        cache = self._language.prefill(x_BPD, freqs, None if is_dense else valid[:, None, None])
        prefix = FrozenPrefix(cache, valid, is_dense)
        return prefix if isinstance(self._network, Pi05) else self._with_state(prefix, inputs.state)

    def _with_state(self, prefix: FrozenPrefix, state: Float[Tensor, "B S"]) -> FrozenPrefix:
        token = F.linear(state, *self._state_proj)[:, None].to(prefix.cache[0].dtype)
        valid = F.pad(prefix.valid, (0, 1), value=True)
        freqs = rope_factors(prefix.valid.sum(1, keepdim=True), self.config.expert)
        buffers = [F.pad(kv, (0, 0, 0, 0, 0, 1)) for kv in prefix.cache]
        mask = None if prefix.is_dense else valid[:, None, None]
        self._expert.extend(token, freqs, buffers, mask)
        return FrozenPrefix(buffers, valid, prefix.is_dense)

    def flow(self, prefix: FrozenPrefix, num_draws: int = 1) -> "FrozenFlow":
        """Returns the velocity field for `num_draws` chunks of every observation in a row."""
        valid = prefix.valid.repeat_interleave(num_draws, 0) if num_draws > 1 else prefix.valid
        horizon = self.config.horizon
        positions = valid.sum(1, keepdim=True) + torch.arange(horizon, device=valid.device)
        freqs = rope_factors(positions, self.config.expert)
        buffers = [
            F.pad(kv.repeat_interleave(num_draws, 0) if num_draws > 1 else kv, (0, 0, 0, 0, 0, horizon))
            for kv in prefix.cache
        ]
        mask = None if prefix.is_dense else F.pad(valid, (0, horizon), value=True)[:, None, None]
        return FrozenFlow(self, buffers, mask, freqs)

    @torch.inference_mode()
    def sample(
        self, inputs: ModelInputs, noise: Float[Tensor, "B G H A"], num_steps: int | None = None
    ) -> Float[Tensor, "B G H A"]:
        """Integrates the flow by Euler steps, as `Pi0.sample`; G chunks of one observation share its prefix."""
        steps = self.config.num_steps if num_steps is None else num_steps
        flow = self.flow(self.encode(inputs), noise.shape[1])
        return sample_euler(flow, noise.flatten(0, 1), steps).unflatten(0, noise.shape[:2])

    def prepare(self, num_steps: int) -> None:
        """Computes the tables of a sampler of so many steps, so that the first call does not."""
        for time in flow_times(num_steps):
            self.time_table(time)

    def compile_(self, backend: str | Callable = "inductor") -> None:
        """Has torch.compile make code for the three stacks at their first call; they run as they are if it fails."""
        self._vision.forward = compiled(self._vision.forward, backend=backend)
        self._language.prefill = compiled(self._language.prefill, backend=backend)
        self._expert.forward = compiled(self._expert.forward, backend=backend)

    def time_table(self, time: float | Tensor) -> TimeTable:
        """Returns what depends on the time; tables of numbers are kept."""
        if isinstance(time, Tensor):
            return self._make_table(time)
        if time in self._times:
            return self._times[time]
        with torch.inference_mode(mode=False), torch.no_grad():
            table = self._make_table(torch.full((1,), time, device=self._embedding.device))
        # None is ever given up: a recorded CUDA graph reads the tables where they were.
        if len(self._times) < _MAX_TIMES:
            self._times[time] = table
        return table

    def _make_table(self, time: Tensor) -> TimeTable:
        embedded = time_embedding(time, self.config.expert.width)
        if not isinstance(self._network, Pi05):
            bias = F.linear(embedded, self._of_time, self._action_in[1])
            return TimeTable(bias if bias.dim() == 3 else bias[:, None], [])
        condition = self._network.time_condition(embedded)
        return TimeTable(None, self._expert.modulations(condition))

    def embed_actions(self, x_t: Float[Tensor, "R H A"], table: TimeTable) -> Float[Tensor, "R H D"]:
        """Returns the expert's tokens, float32."""
        if table.bias is None:
            return F.linear(x_t, *self._action_in)
        return F.linear(F.silu(F.linear(x_t, self._action_in[0]) + table.bias), *self._action_time_out)

    def velocity(self, flow: "FrozenFlow", x_t: Float[Tensor, "R H A"], time: float | Tensor) -> Tensor:
        """Returns the predicted noise minus actions, float32."""
        table = self.time_table(time)
        tokens = self.embed_actions(x_t, table).to(flow.buffers[0].dtype)
        output = self._expert.forward(tokens, flow.freqs, flow.buffers, flow.mask, table.modulations)
        return F.linear(output.float(), *self._action_out)


@dataclass(slots=True)
class FrozenFlow:
    """The velocity field of one call; its buffers are overwritten in every step."""

    network: FrozenPi0
    buffers: list[Float[Tensor, "R S 2K h"]]
    mask: Bool[Tensor, "R 1 1 S"] | None
    freqs: Tensor

    def velocity(self, x_t: Float[Tensor, "R H A"], time: float | Tensor) -> Float[Tensor, "R H A"]:
        """Returns the predicted noise minus actions; `time` is a number or a tensor [R] or [R, H]."""
        return self.network.velocity(self, x_t, time)


def _detached(layer: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight.detach().float(), layer.bias.detach().float()
