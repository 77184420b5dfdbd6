"""π0 (arXiv:2410.24164): a vision-language prefix and an action expert that denoises a chunk of actions.

Noise convention of openpi: t = 1 is pure noise, t = 0 is data; x_t = t * noise + (1 - t) * actions; the network
predicts u = noise - actions; sampling integrates from 1 down to 0.

Legend: B batch, C cameras, L prompt tokens, P prefix tokens, H chunk horizon, A action width, S state width, G draws of
noise per observation, D width.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.gemma import GemmaModel, KeyValue
from serl_launcher.networks.precision import uncast
from serl_launcher.networks.sampling import NetworkFlow, sample_euler
from serl_launcher.networks.siglip import SiglipVisionTransformer
from serl_launcher.networks.siglip import initialize_ as initialize_vision_

MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0
BETA_ALPHA = 1.5


@dataclass(kw_only=True, slots=True)
class ModelInputs:
    """One batch of observations, ready for the network."""

    images: Float[Tensor, "B C 3 h w"]
    """In [-1, 1]."""
    image_valid: Bool[Tensor, "B C"]
    """False where the robot lacks the camera."""
    tokens: Int[Tensor, "B L"]
    token_valid: Bool[Tensor, "B L"]
    state: Float[Tensor, "B S"]
    """Normalised and padded."""


@dataclass(slots=True)
class Prefix:
    """What the action expert attends to: computed once per observation."""

    cache: list[KeyValue]
    valid: Bool[Tensor, "B P"]

    def repeat(self, times: int) -> "Prefix":
        """Returns the prefix of every observation `times` in a row, without computing it again."""
        if times == 1:
            return self
        cache = [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.cache]
        return Prefix(cache, self.valid.repeat_interleave(times, 0))


@dataclass(slots=True)
class Suffix:
    """What the action expert runs over."""

    tokens: Float[Tensor, "B T D"]
    condition: Tensor | None
    """Of the expert's adaptive norms, [B, D] or [B, T, D]; None where its norms are plain."""
    num_context: int
    """Leading tokens that are no actions and do not see them."""


class _Projector(nn.Module):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.vision.width, config.language.width)


class _VisionTower(nn.Module):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.vision_model = SiglipVisionTransformer(config.vision)


class _PaliGemmaModel(nn.Module):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.vision_tower = _VisionTower(config)
        self.multi_modal_projector = _Projector(config)
        self.language_model = GemmaModel(config.language, config.vocab_size)


class _PaliGemma(nn.Module):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.model = _PaliGemmaModel(config)


class _Expert(nn.Module):
    def __init__(self, config: PolicyConfig, condition_width: int | None) -> None:
        super().__init__()
        self.model = GemmaModel(config.expert, None, condition_width)


class _PaliGemmaWithExpert(nn.Module):
    def __init__(self, config: PolicyConfig, condition_width: int | None) -> None:
        super().__init__()
        self.paligemma = _PaliGemma(config)
        self.gemma_expert = _Expert(config, condition_width)


class Pi0(nn.Module):
    """The network alone: normalised tensors in, velocities or normalised actions out."""

    def __init__(self, config: PolicyConfig, *, condition_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.expert.width
        self.paligemma_with_expert = _PaliGemmaWithExpert(config, condition_width)
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        self._make_heads(width)

    def _make_heads(self, width: int) -> None:
        """Makes what embeds state and time."""
        self.state_proj = nn.Linear(self.config.max_state_dim, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)

    def initialize_(self) -> None:
        """Draws fresh weights; norms start at identity."""
        backbone = self.paligemma_with_expert.paligemma.model
        for model in (backbone.language_model, self.paligemma_with_expert.gemma_expert.model):
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear) and not name.endswith(".dense"):
                    nn.init.normal_(module.weight, std=module.in_features**-0.5)
        nn.init.normal_(backbone.language_model.embed_tokens.weight, std=0.25)
        initialize_vision_(backbone.vision_tower.vision_model)

    def encode(self, inputs: ModelInputs) -> Prefix:
        """Runs vision and language once; bidirectional among valid tokens."""
        return self.encode_with_features(without_padding(inputs))[0]

    def encode_with_features(self, inputs: ModelInputs) -> tuple[Prefix, Float[Tensor, "B P D"]]:
        """Returns the prefix, and its tokens as they enter the last layer: first every camera's, then the prompt's."""
        backbone = self.paligemma_with_expert.paligemma.model
        image_tokens = backbone.vision_tower.vision_model(inputs.images.flatten(0, 1))
        image_tokens = backbone.multi_modal_projector.linear(image_tokens)
        per_camera = image_tokens.shape[1]
        image_tokens = image_tokens.reshape(len(inputs.images), -1, image_tokens.shape[-1])
        text_tokens = backbone.language_model.embed(inputs.tokens)
        x_BPD = torch.cat([image_tokens, text_tokens.to(image_tokens.dtype)], dim=1)
        valid = torch.cat([inputs.image_valid.repeat_interleave(per_camera, 1), inputs.token_valid], dim=1)
        mask = (valid[:, None, :, None] & valid[:, None, None, :]) | _diagonal(valid)
        cache, tokens = backbone.language_model.prefill(x_BPD, valid.cumsum(1) - 1, mask)
        return Prefix(cache, valid), tokens

    def velocity(
        self,
        prefix: Prefix,
        state: Float[Tensor, "B S"],
        x_t: Float[Tensor, "B H A"],
        time: Float[Tensor, "B ..."],
    ) -> Float[Tensor, "B H A"]:
        """Returns the predicted noise minus actions, float32; `time` is one number per sample or one per action."""
        suffix = self.embed_suffix(state, x_t, time)
        expert = self.paligemma_with_expert.gemma_expert.model
        x_BTD = suffix.tokens.to(prefix.cache[0][0].dtype)
        batch, length = x_BTD.shape[:2]
        positions = prefix.valid.sum(1, keepdim=True) + torch.arange(length, device=x_BTD.device)
        sees_suffix = torch.ones(length, length, dtype=torch.bool, device=x_BTD.device)
        sees_suffix[: suffix.num_context, suffix.num_context :] = False
        mask = torch.cat([prefix.valid[:, None].expand(-1, length, -1), sees_suffix.expand(batch, -1, -1)], dim=2)[
            :, None
        ]
        output = expert(x_BTD, positions, mask, prefix.cache, suffix.condition)
        return uncast(self.action_out_proj, output[:, suffix.num_context :]).float()

    def embed_suffix(
        self, state: Float[Tensor, "B S"], x_t: Float[Tensor, "B H A"], time: Float[Tensor, " B"]
    ) -> Suffix:
        """Returns the action expert's tokens: the state's, then one per action with the time mixed in."""
        tokens = torch.cat([uncast(self.state_proj, state)[:, None], self._embed_actions(x_t, time)], dim=1)
        return Suffix(tokens, condition=None, num_context=1)

    def flow_error(
        self,
        inputs: ModelInputs,
        actions: Float[Tensor, "B H A"],
        noise: Float[Tensor, "B G H A"],
        time: Float[Tensor, "B G"],
    ) -> Float[Tensor, "B G H A"]:
        """Returns the squared flow-matching error (arXiv:2210.02747) of every draw; they share one prefix."""
        return self.flow_error_from(self.encode(inputs), inputs.state, actions, noise=noise, time=time)

    def flow_error_from(
        self,
        prefix: Prefix,
        state: Float[Tensor, "B S"],
        actions: Float[Tensor, "B H A"],
        *,
        noise: Float[Tensor, "B G H A"],
        time: Float[Tensor, "B G"],
    ) -> Float[Tensor, "B G H A"]:
        """Returns the same for a prefix that is computed already."""
        num_draws = noise.shape[1]
        t = time[..., None, None] if time.dim() == 2 else time[..., None]
        x_t = t * noise + (1 - t) * actions[:, None]
        target = noise - actions[:, None]
        repeated = prefix.repeat(num_draws)
        predicted = self.velocity(
            repeated, state.repeat_interleave(num_draws, 0), x_t.flatten(0, 1), time.flatten(0, 1)
        )
        return (predicted.unflatten(0, (-1, num_draws)) - target).square()

    def sample(
        self, inputs: ModelInputs, noise: Float[Tensor, "B G H A"], num_steps: int | None = None
    ) -> Float[Tensor, "B G H A"]:
        """Integrates the flow by Euler steps; G chunks of one observation share its prefix."""
        steps = self.config.num_steps if num_steps is None else num_steps
        num_draws = noise.shape[1]
        prefix = self.encode(inputs).repeat(num_draws)
        state = inputs.state.repeat_interleave(num_draws, 0)
        actions = sample_euler(NetworkFlow(self, prefix, state), noise.flatten(0, 1), steps)
        return actions.unflatten(0, (-1, num_draws))

    def _embed_actions(self, x_t: Float[Tensor, "B H A"], time: Float[Tensor, " B"]) -> Float[Tensor, "B H D"]:
        actions = uncast(self.action_in_proj, x_t)
        times = time_embedding(time, self.config.expert.width).to(actions.dtype)
        joined = torch.cat([actions, (times if times.dim() == 3 else times[:, None]).expand_as(actions)], dim=-1)
        return uncast(self.action_time_mlp_out, F.silu(uncast(self.action_time_mlp_in, joined)))


def without_padding(inputs: ModelInputs) -> ModelInputs:
    """Returns inputs without the prompt slots that no sample uses, which nobody attends to.

    Only on a CPU: elsewhere the host would have to wait for the device, and shapes would change.
    """
    if inputs.tokens.device.type != "cpu":
        return inputs
    length = int(inputs.token_valid.sum(1).max())
    return replace(inputs, tokens=inputs.tokens[:, :length], token_valid=inputs.token_valid[:, :length])


def time_embedding(time: Float[Tensor, "*B"], width: int) -> Float[Tensor, "*B D"]:
    """Returns [sin, cos] of 2 pi t / period for geometrically spaced periods, float32 computed in float64."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction
    angle = 2 * math.pi * time.double()[..., None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def sample_flow_time(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draws t = 0.999 * Beta(1.5, 1) + 0.001. With b = 1 the Beta's quantile function is u ** (1 / a)."""
    uniform = torch.rand(shape, generator=generator, device=device)
    return 0.999 * uniform ** (1.0 / BETA_ALPHA) + 0.001


def _diagonal(valid: Bool[Tensor, "B P"]) -> Bool[Tensor, "1 1 P P"]:
    """Lets every padding token see itself, so that no row of the softmax is empty."""
    return torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)[None, None]
