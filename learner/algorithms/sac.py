"""Soft actor-critic with a Gaussian policy, on its own or with demonstrations.

Haarnoja et al. 2018 (arXiv:1812.05905). Demonstrations mixed in at an exact share, LayerNorm in the critics and a large
ensemble make it RLPD (arXiv:2302.02948); a random subset of critics per target is REDQ (arXiv:2101.05982); the critic
of an opening and closing gripper is HIL-SERL's (arXiv:2410.21845). Images are encoded once, by the critics' encoder;
the policy's gradient stops there.

Legend: B batch, E critics, A action width (continuous dimensions), D width of features.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.algorithms.critics import (
    CriticLoss,
    Critics,
    CriticSample,
    TargetCritics,
    random_subset,
    same_draws,
)
from learner.algorithms.interfaces import Sampling
from learner.algorithms.parts import Parts, unwrapped
from learner.algorithms.pieces import pieces
from learner.algorithms.temperature import Temperature
from learner.algorithms.turns import PolicyTurns
from learner.algorithms.window import WholeWindow
from learner.losses.actor_critic import pessimistic, policy_loss, soft_value, td_target
from learner.losses.discrete import double_dqn_target, toggle_penalty
from learner.replay.batch import Batch
from learner.trainer.optimization import Optimization
from learner.trainer.publishing import Snapshot
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.config.sac import SacConfig
from serl_launcher.config.training import AlgoConfig
from serl_launcher.networks.gaussian import TanhGaussian
from serl_launcher.networks.observation import random_shift
from serl_launcher.policies.gaussian import GaussianPolicy, load_gaussian, save_gaussian
from serl_launcher.policies.snapshots import PolicySnapshots


class Actor(nn.Module):
    """The policy's loss as a module; the critics are a guest in it, not a part."""

    def __init__(self, gaussian: TanhGaussian, critics: Critics, actor_value: str) -> None:
        super().__init__()
        self.gaussian = gaussian
        self._critics = (critics,)
        self._takes_mean = actor_value == "mean"
        self.log_prob: list[Float[Tensor, " B"]] = []
        """Of the actions drawn in the losses of this update."""

    def forward(self, features: Float[Tensor, "B D"], noise: Float[Tensor, "B A"], temperature: Tensor) -> Tensor:
        """Returns the loss, and the log density of the drawn actions through `log_prob`."""
        (critics,) = self._critics
        actions, log_prob = self.gaussian(features, noise)
        critics.requires_grad_(requires_grad=False)
        q = critics.value(features, actions)
        critics.requires_grad_(requires_grad=True)
        self.log_prob.append(log_prob.detach())
        return policy_loss(q.mean(dim=0) if self._takes_mean else pessimistic(q), log_prob, temperature)


class Sac(WholeWindow):
    """Learns from every step of the sampling window, whoever acted."""

    def __init__(
        self, policy: GaussianPolicy, critics: Critics, config: AlgoConfig, dataset: DatasetConfig,
        optimizations: tuple[Optimization, Optimization, Optimization], *, num_micro_batches: int = 1, seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        """Trains `policy`; `optimizations` are those of actor, critics and temperature, whose modules are ours."""
        self._num_micro_batches = num_micro_batches
        self.policy = policy
        self._critics = critics
        self._config = config
        self._dataset = dataset
        self._actor, self._critic, self._temperature = optimizations
        self._target = TargetCritics(critics, config.sac.soft_target_update_rate)
        self._generator = torch.Generator(policy.device).manual_seed(seed)
        self._part = part
        self._turns = PolicyTurns(config.sac)
        self._snapshots = PolicySnapshots()
        self._temperature_module = unwrapped(self._temperature.module, Temperature)
        self._actor_module = unwrapped(self._actor.module, Actor)
        self._parts = Parts(
            generator=self._generator,
            optimizations={"optimize_actor": self._actor, "optimize_critics": self._critic,
                           "optimize_temperature": self._temperature},
            modules={"critics": critics, "target": self._target.module, "temperature": self._temperature_module},
        )  # fmt: skip

    @property
    def num_updates(self) -> int:
        """Critic updates made."""
        return self._critic.num_updates

    @property
    def sampling(self) -> Sampling:
        """Single steps, with what followed."""
        sac = self._config.sac
        return Sampling(
            horizon=1, discount=sac.discount, with_next=True, rewards_from_labels=sac.reward_from == "label"
        )

    @property
    def num_steps_to_start(self) -> int:
        """Online steps before the first update."""
        return self._config.training_starts

    def update(self, batch: Batch) -> dict[str, float]:
        """Makes one update of the critics and, where it is due, of policy and temperature."""
        sample = self._sample(batch)
        parts = pieces(sample, self._num_micro_batches, batch_size=len(batch))
        learned = self._critic.update(parts, self._critic.module)
        self._target.follow()
        metrics = {"loss": learned["loss"], "critic_grad_norm": learned["grad_norm"], "lr": learned["lr"],
                   "target": float(sample.target.mean())}  # fmt: skip
        if self._turns.is_due(self.num_updates):
            metrics |= self._update_actor(sample)
            self._turns.take()
        return metrics

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the Bellman error on samples that are not learned from."""
        with torch.no_grad(), same_draws(self._generator):
            return {"loss": float(CriticLoss(self._critics, 0.0)(self._sample(batch, is_training=False)))}

    def restart_schedule(self) -> None:
        """Begins the schedules of all learning rates anew."""
        self._parts.restart_schedules()

    def save_policy(self, directory: Path) -> None:
        """Writes the policy to act with into an existing directory."""
        with self._actor.published_weights():
            save_gaussian(self.policy, directory)

    def snapshot_policy(self) -> Snapshot:
        """Returns the policy to act with as it is now, to be written while training goes on."""
        with self._actor.published_weights():
            return self._snapshots.take(self.policy)

    def load_policy(self, directory: Path) -> None:
        """Takes over saved weights."""
        self.policy.load_state_dict(load_gaussian(directory, device=self.policy.device).state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run."""
        return self._parts.state(self.num_updates)

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken; the policy already holds the saved weights."""
        self._parts.load(tensors, scalars)
        self._turns.take()

    def _update_actor(self, sample: CriticSample) -> dict[str, float]:
        with torch.no_grad():
            features = self._critics.features(*sample.observed)
        noise, temperature = self._noise(len(features)), self._temperature_module.value
        self._actor_module.log_prob.clear()
        parts = pieces((features, noise, temperature), self._num_micro_batches, batch_size=len(features))
        learned = self._actor.update(parts, lambda each: self._actor.module(*each))
        log_prob = torch.cat(self._actor_module.log_prob)
        self._temperature.update([log_prob], self._temperature.module)
        return {"actor_loss": learned["loss"], "entropy": -float(log_prob.mean()), "temperature": float(temperature)}

    def _sample(self, batch: Batch, *, is_training: bool = True) -> CriticSample:
        """Returns what the critics learn from a batch: executed actions and what they turned out to be worth."""
        assert batch.next_images is not None, "Sampling asks for what follows."
        assert batch.next_state is not None
        sac, policy = self._config.sac, self.policy
        now = policy.prepare(batch.images, batch.state, batch.prompts)
        then = policy.prepare(batch.next_images, batch.next_state, batch.prompts)
        shift = sac.image_shift if is_training else 0
        images, next_images = self._shifted(now.images, shift), self._shifted(then.images, shift)
        actions = policy.scale(torch.from_numpy(batch.actions[:, 0]).to(policy.device))
        reward = sac.reward_scale * torch.from_numpy(batch.reward).to(policy.device) + sac.reward_bias
        discount = torch.from_numpy(batch.discount).to(policy.device)
        with torch.no_grad():
            target = td_target(reward, discount, self._next_value(next_images, then.state))
        sample = CriticSample(seen=images, state=now.state, actions=actions[:, policy.continuous], target=target)
        if policy.gripper is not None:
            self._add_gripper_(sample, actions, (next_images, then.state), reward=reward, discount=discount)
        if sac.cql_weight > 0 and is_training:
            self._add_drawn_(sample, batch)
        return sample

    def _next_value(self, images: Tensor, state: Tensor) -> Float[Tensor, " B"]:
        sac = self._config.sac
        features = self._critics.features(images, state)
        actions, log_prob = self.policy.actor(features, self._noise(len(features)))
        q = self._target.module.value(self._target.module.features(images, state), actions)
        value = pessimistic(q, random_subset(sac, self._generator))
        return soft_value(value, log_prob, self._temperature_module.value) if sac.backup_entropy else value

    def _add_gripper_(
        self, sample: CriticSample, actions: Tensor, following: tuple[Tensor, Tensor], *, reward: Tensor,
        discount: Tensor,
    ) -> None:  # fmt: skip
        """Adds what the gripper's critic learns: which choice the executed action was, and its double-DQN target."""
        online, target = self._critics.gripper, self._target.module.gripper
        config = self.policy.config
        assert online is not None
        assert target is not None
        assert config.gripper is not None
        sample.choice = torch.bucketize(actions[:, config.gripper].contiguous(), _CHOICE_EDGES.to(actions.device))
        penalty = torch.zeros(())
        if config.gripper_state is not None:
            is_open = sample.state[:, config.gripper_state]
            penalty = toggle_penalty(sample.choice, is_open, self._config.sac.gripper.toggle_penalty)
        with torch.no_grad():
            next_q = online(self._critics.features(*following))
            next_target_q = target(self._target.module.features(*following))
            sample.choice_target = double_dqn_target(reward + penalty, discount, next_q, next_target_q)

    def _add_drawn_(self, sample: CriticSample, batch: Batch) -> None:
        """Adds uniform actions and the policy's own, with their densities, for the conservative penalty."""
        count, width = self._config.sac.cql_samples, len(self.policy.continuous)
        batch_size = len(sample.target)
        with torch.no_grad():
            features = self._critics.features(*sample.observed).repeat_interleave(count, 0)
            own, log_prob = self.policy.actor(features, self._noise(batch_size, count).flatten(0, 1))
        uniform = 2 * self._uniform(batch_size, count, width) - 1
        shape = (batch_size, count)
        sample.drawn_actions = torch.cat([own.unflatten(0, shape), uniform], dim=1)
        density = torch.full(shape, -width * float(np.log(2.0)), device=own.device)
        sample.drawn_log_density = torch.cat([log_prob.unflatten(0, shape), density], dim=1)
        if self._config.sac.cql_calibrated and batch.return_to_go is not None:
            scaled = self._config.sac.reward_scale * batch.return_to_go
            sample.value_of_behaviour = torch.from_numpy(scaled).to(own.device)

    def _shifted(self, images: Tensor, pad: int) -> Tensor:
        if not pad or not images.shape[1]:
            return images
        return random_shift(images, self._uniform(len(images), 2).T, pad)

    def _noise(self, batch_size: int, *more: int) -> Float[Tensor, "B ... A"]:
        """Returns this rank's samples of the noise of all ranks."""
        number, ranks = self._part
        shape = (batch_size * ranks, *more, len(self.policy.continuous))
        return torch.randn(shape, generator=self._generator, device=self.policy.device)[number::ranks]

    def _uniform(self, batch_size: int, *shape: int) -> Float[Tensor, "B ..."]:
        """Returns this rank's samples of the uniform draws of all ranks."""
        number, ranks = self._part
        draws = torch.rand((batch_size * ranks, *shape), generator=self._generator, device=self.policy.device)
        return draws[number::ranks]


_CHOICE_EDGES = torch.tensor([-1 / 3, 1 / 3])
"""Of scaled commands: below is close, between is stay, above is open."""


def target_entropy(config: SacConfig, action_dim: int) -> float:
    """Returns the entropy that the temperature aims at."""
    return -float(action_dim) if config.target_entropy is None else config.target_entropy
