"""A flow policy's losses as a module: climbing critics near a frozen reference, or cloning.

Legend: B batch, N noises of one chunk, H chunk horizon, A action width, M width that the network pads it to, K executed
actions in one row, F features of the backbone.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from learner.algorithms.critics import Critics
from learner.losses.actor_critic import pessimistic, policy_loss
from learner.losses.flow_matching import flow_matching_loss
from learner.losses.regularization import behaviour_regularized_loss, distillation_loss
from serl_launcher.config.sac import SacConfig
from serl_launcher.config.training import AlgoConfig
from serl_launcher.networks.features import Encoding, encode
from serl_launcher.networks.pi0 import ModelInputs
from serl_launcher.networks.sampling import sample_euler
from serl_launcher.networks.stochastic import StochasticSampler
from serl_launcher.policies import Pi0Policy

_BOUND = 3.0
"""Normalised actions beyond it are rare; critics see them clipped, and uniform ones are drawn within it."""


@dataclass(kw_only=True, slots=True)
class Lesson:
    """What one update of the policy is computed from."""

    inputs: ModelInputs
    noise: Float[Tensor, "B N H M"]
    observed: tuple[Tensor, ...] | None = None
    """What the critics see (`CriticSample.observed`); None in supervised updates."""
    encoding: Encoding | None = None
    """Of `inputs`, where the backbone has run already and does not train."""
    state: Tensor | None = None
    temperature: Float[Tensor, ""] | None = None
    """Weight of the divergence from the reference, where chunks are drawn along paths."""
    actions: Float[Tensor, "B H A"] | None = None
    """Executed, in robot units; supervised updates alone."""
    time: Float[Tensor, "B 1"] | None = None
    is_pad: Bool[Tensor, "B H"] | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """Chunks of a policy while it learns, in the network's scale."""

    chunk: Float[Tensor, "B H A"]
    features: Float[Tensor, "B F"]
    """Of the backbone, in the same pass."""
    divergence: Float[Tensor, " B"] | None
    """log pi(path) - log pi_reference(path), per coordinate of the path; None: Euler's method has no density."""


class Drawing:
    """How chunks are drawn while learning: by Euler's method, or along a path that has a density."""

    def __init__(self, policy: Pi0Policy, reference: Pi0Policy | None, config: SacConfig) -> None:
        self._policy, self._reference = policy, reference
        self._pooling = "mean" if config.critic_features == "own" else config.critic_features
        self._sampler: StochasticSampler | None = None
        if config.sampler != "euler":
            self._sampler = StochasticSampler(
                num_steps=policy.config.num_steps, noise_level=config.sampler_noise, kind=config.sampler
            )

    @property
    def num_noises(self) -> int:
        """Standard normal draws per chunk, N: its beginning, and one per step of a path."""
        return 1 if self._sampler is None else 1 + self._sampler.num_steps

    def encode(self, inputs: ModelInputs) -> Encoding:
        """Returns what the backbone makes of observations, without gradients."""
        return encode(self._policy.network, inputs, pooling=self._pooling, no_grad=True)

    def draw(self, inputs: ModelInputs, noise: Float[Tensor, "B N H M"], encoding: Encoding | None = None) -> Drawn:
        """Returns one chunk per observation, with gradients; `encoding` is of `inputs`, where it is known."""
        width = self._policy.spec.action_dim
        if encoding is None:
            encoding = encode(self._policy.network, inputs, pooling=self._pooling)
        features = encoding.features.detach()
        if self._sampler is None:
            actions = sample_euler(encoding.flow(), noise[:, 0], self._policy.config.num_steps)
            return Drawn(actions[..., :width], features, None)
        path = self._sampler.sample(encoding.flow(), noise[:, 0], draws=noise[:, 1:])
        assert self._reference is not None, "Paths are compared with a reference; `build` makes one."
        known = encode(self._reference.network, inputs, no_grad=True)
        ratio = path.log_prob - self._sampler.log_prob(known.flow(), path.points)
        return Drawn(path.actions[..., :width], features, ratio.flatten(1).mean(dim=1))


class FlowActor(nn.Module):
    """The policy's losses as a module; critics and reference are guests in it."""

    def __init__(
        self, policy: Pi0Policy, critics: Critics, reference: Pi0Policy | None, config: AlgoConfig, executed: int
    ) -> None:
        super().__init__()
        self.policy = policy
        self._guests = (critics, reference)
        self._config = config.sac
        self.executed = executed
        """Actions of a chunk until the next decision, h."""
        self.drawing = Drawing(policy, reference, config.sac)
        self.divergence: list[Float[Tensor, " B"]] = []
        """Of the chunks in the losses of this update."""

    @property
    def reference(self) -> Pi0Policy | None:
        """The frozen policy that this one is held near."""
        return self._guests[1]

    def forward(self, lesson: Lesson) -> Float[Tensor, ""]:
        """Returns the supervised loss where the lesson has actions, else the value to climb and the distance kept."""
        if lesson.actions is not None and lesson.is_pad is not None and lesson.time is not None:
            draws = (lesson.noise, lesson.time)
            error = self.policy.flow_loss(lesson.inputs, lesson.actions, lesson.is_pad, draws=draws)
            return flow_matching_loss(error, lesson.is_pad)
        drawn = self.drawing.draw(lesson.inputs, lesson.noise, lesson.encoding)
        value = self._value(drawn.chunk, lesson)
        if drawn.divergence is not None and lesson.temperature is not None:
            self.divergence.append(drawn.divergence.detach())
            return policy_loss(value, drawn.divergence, lesson.temperature)
        return behaviour_regularized_loss(value, self._distance(drawn.chunk, lesson), self._config.distill_weight)

    def _value(self, chunk: Float[Tensor, "B H A"], lesson: Lesson) -> Float[Tensor, " B"]:
        critics = self._guests[0]
        assert lesson.observed is not None
        critics.requires_grad_(requires_grad=False)
        q = critics.value(critics.features(*lesson.observed), rated(chunk, self.executed))
        critics.requires_grad_(requires_grad=True)
        return q.mean(dim=0) if self._config.actor_value == "mean" else pessimistic(q)

    def _distance(self, chunk: Float[Tensor, "B H A"], lesson: Lesson) -> Float[Tensor, ""]:
        if self.reference is None:
            return chunk.new_zeros(())
        with torch.no_grad():
            known = self.reference.network.sample(lesson.inputs, lesson.noise)[:, 0, :, : chunk.shape[-1]]
        return distillation_loss(chunk, known)


def rated(chunk: Float[Tensor, "B H A"], executed: int) -> Float[Tensor, "B K"]:
    """Returns what critics see of a chunk in the network's scale: the executed actions, bounded, flattened."""
    return (chunk[:, :executed].clamp(-_BOUND, _BOUND) / _BOUND).flatten(1)


def frozen_copy(policy: Pi0Policy) -> Pi0Policy:
    """Returns the policy as it is now, which does not learn."""
    return copy.deepcopy(policy).requires_grad_(requires_grad=False)
