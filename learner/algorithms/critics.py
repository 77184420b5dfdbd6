"""Critics as modules: an encoder with an ensemble on top, their slowly following targets, and their loss.

Legend: B batch, E critics, H chunk horizon, A action width, D width of features, N drawn actions.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from learner.algorithms.encoders import PooledEncoder, PromptedEncoder
from learner.losses.actor_critic import critic_loss, polyak_
from learner.losses.conservative import cal_ql_penalty
from learner.losses.discrete import choice_loss
from serl_launcher.config.sac import SacConfig
from serl_launcher.networks.mlp import EnsembleMlp, Mlp
from serl_launcher.networks.observation import ObservationEncoder


@dataclass(kw_only=True, slots=True)
class CriticSample:
    """What the critics learn from; every tensor has one row per sample."""

    seen: Tensor
    """What the critics' encoder reads beside the state: images, uint8 [B, C, h, w, 3], or the policy's features."""
    state: Float[Tensor, "B S"]
    prompt: Float[Tensor, "B P"] | None = None
    """Where `seen` does not know what was asked for."""
    actions: Float[Tensor, "B K"]
    """Executed actions, scaled to (-1, 1) and flattened."""
    target: Float[Tensor, " B"]
    drawn_actions: Float[Tensor, "B N K"] | None = None
    """For the conservative penalty."""
    drawn_log_density: Float[Tensor, "B N"] | None = None
    value_of_behaviour: Float[Tensor, " B"] | None = None
    choice: Int[Tensor, " B"] | None = None
    """Of the gripper."""
    choice_target: Float[Tensor, " B"] | None = None

    @property
    def observed(self) -> tuple[Tensor, ...]:
        """What the critics' encoder is called with."""
        return (self.seen, self.state) if self.prompt is None else (self.seen, self.state, self.prompt)


class Critics(nn.Module):
    """An encoder of observations, an ensemble over features and actions, and a gripper's critic where there is one."""

    def __init__(
        self, encoder: ObservationEncoder | PooledEncoder | PromptedEncoder, action_width: int, *, members: int,
        hidden: Sequence[int], layer_norm: bool, gripper: Mlp | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = encoder
        self.ensemble = EnsembleMlp(members, encoder.width + action_width, hidden, layer_norm=layer_norm)
        self.gripper = gripper

    def features(self, *observed: Tensor) -> Float[Tensor, "B D"]:
        """Returns what the encoder makes of observations: images or a policy's features, the state, and the prompt."""
        return self.encoder(*observed)

    def value(self, features: Float[Tensor, "B D"], actions: Float[Tensor, "B K"]) -> Float[Tensor, "E B"]:
        """Returns what every critic thinks of flattened actions in (-1, 1)."""
        return self.ensemble(torch.cat([features, actions], dim=-1))


class CriticLoss(nn.Module):
    """The loss as a module, so that accelerate can wrap its forward pass."""

    def __init__(self, critics: Critics, cql_weight: float) -> None:
        super().__init__()
        self.critics = critics
        self._cql_weight = cql_weight

    def forward(self, sample: CriticSample) -> Float[Tensor, ""]:
        """Returns the Bellman error of every critic, and the conservative penalty where there is one."""
        features = self.critics.features(*sample.observed)
        q = self.critics.value(features, sample.actions)
        loss = critic_loss(q, sample.target)
        if sample.drawn_actions is not None and sample.drawn_log_density is not None:
            num_drawn = sample.drawn_actions.shape[1]
            repeated = features.repeat_interleave(num_drawn, 0)
            drawn = self.critics.value(repeated, sample.drawn_actions.flatten(0, 1)).unflatten(1, (-1, num_drawn))
            penalty = cal_ql_penalty(q, drawn, sample.drawn_log_density, sample.value_of_behaviour)
            loss = loss + self._cql_weight * penalty
        if self.critics.gripper is not None and sample.choice is not None and sample.choice_target is not None:
            loss = loss + choice_loss(self.critics.gripper(features), sample.choice, sample.choice_target)
        return loss


def random_subset(config: SacConfig, generator: torch.Generator) -> Int[Tensor, " K"] | None:
    """Returns the critics of whose minimum the next target is made; None: all of them."""
    if config.critic_subsample_size is None:
        return None
    order = torch.randperm(config.critic_ensemble_size, generator=generator, device=generator.device)
    return order[: config.critic_subsample_size]


@contextmanager
def same_draws(generator: torch.Generator) -> Iterator[None]:
    """Within it, what is drawn is not missing afterwards: measuring does not change what is learned."""
    state = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(state)


class TargetCritics:
    """A copy that follows the critics by Polyak averaging, parameters and buffers alike."""

    def __init__(self, critics: Critics, rate: float) -> None:
        """Starts equal to `critics`."""
        self.module = copy.deepcopy(critics).requires_grad_(requires_grad=False)
        self._online = critics
        self._rate = rate

    def follow(self) -> None:
        """Moves towards the critics."""
        polyak_(self._tensors(self.module), self._tensors(self._online), self._rate)

    @staticmethod
    def _tensors(module: nn.Module) -> list[Tensor]:
        return [tensor.detach() for tensor in module.state_dict().values() if tensor.is_floating_point()]
