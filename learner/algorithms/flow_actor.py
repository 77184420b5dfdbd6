"""A flow policy's losses as a module: climbing critics near a frozen reference, or cloning.

Legend: B batch, H chunk horizon, A action width, M width that the network pads it to, K executed actions in one row.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from learner.algorithms.critics import Critics
from learner.losses.actor_critic import pessimistic
from learner.losses.flow_matching import flow_matching_loss
from learner.losses.regularization import behaviour_regularized_loss, distillation_loss
from serl_launcher.config.training import AlgoConfig
from serl_launcher.networks.pi0 import ModelInputs
from serl_launcher.policies import Pi0Policy

_BOUND = 3.0
"""Normalised actions beyond it are rare; critics see them clipped, and uniform ones are drawn within it."""


@dataclass(kw_only=True, slots=True)
class Lesson:
    """What one update of the policy is computed from."""

    inputs: ModelInputs
    noise: Float[Tensor, "B 1 H M"]
    images: Tensor | None = None
    """uint8, for the critics; None in supervised updates."""
    state: Tensor | None = None
    actions: Float[Tensor, "B H A"] | None = None
    """Executed, in robot units; supervised updates alone."""
    time: Float[Tensor, "B 1"] | None = None
    is_pad: Bool[Tensor, "B H"] | None = None


class FlowActor(nn.Module):
    """The policy's losses as a module; critics and reference are guests in it."""

    def __init__(
        self, policy: Pi0Policy, critics: Critics, reference: Pi0Policy | None, config: AlgoConfig, executed: int
    ) -> None:
        super().__init__()
        self.policy = policy
        self._guests = (critics, reference)
        self._config = config.sac
        self._executed = executed

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
        critics, reference = self._guests
        width = self.policy.spec.action_dim
        chunk = self.policy.network.sample(lesson.inputs, lesson.noise)[:, 0, :, :width]
        critics.requires_grad_(requires_grad=False)
        assert lesson.images is not None
        assert lesson.state is not None
        q = critics.value(critics.features(lesson.images, lesson.state), rated(chunk, self._executed))
        critics.requires_grad_(requires_grad=True)
        value = q.mean(dim=0) if self._config.actor_value == "mean" else pessimistic(q)
        distance = chunk.new_zeros(())
        if reference is not None:
            with torch.no_grad():
                known = reference.network.sample(lesson.inputs, lesson.noise)[:, 0, :, :width]
            distance = distillation_loss(chunk, known)
        return behaviour_regularized_loss(value, distance, self._config.distill_weight)


def rated(chunk: Float[Tensor, "B H A"], executed: int) -> Float[Tensor, "B K"]:
    """Returns what critics see of a chunk in the network's scale: the executed actions, bounded, flattened."""
    return (chunk[:, :executed].clamp(-_BOUND, _BOUND) / _BOUND).flatten(1)


def frozen_copy(policy: Pi0Policy) -> Pi0Policy:
    """Returns the policy as it is now, which does not learn."""
    return copy.deepcopy(policy).requires_grad_(requires_grad=False)
