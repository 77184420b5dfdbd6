"""`sac_pi0`: a flow policy that climbs chunked critics, held near a frozen copy of its beginning.

The name is that of the published configuration. The critics rate the h actions that are executed before the next
decision (Q-chunking, arXiv:2507.07969): y = sum of gamma ** i * r_i + gamma ** h * min_k Q_k(s', a'), a' drawn from the
present policy. The policy's gradient goes through all steps of its sampler. `algo.sac.sampler` chooses what it is:

- `euler`: a deterministic sampler has no log-probability, so there is neither an entropy nor a temperature: a
  behaviour-regularised actor-critic (BRAC, arXiv:1911.11361), distance = actions for the same noise.
- `sde`, `injected`: the path of a stochastic sampler has a real log-probability. Its entropy is a constant of the noise
  level, so what is rewarded is the entropy relative to the reference's paths, -(log pi - log pi_reference), with a
  temperature that keeps a target: soft actor-critic with a prior (arXiv:2010.11944). Actors sample by Euler's method.

    update:   0 ... rl_steps - 1          critics; every `cta_ratio`-th also the policy
              ... rl_steps + sft_steps    flow matching on successful episodes and demonstrations; critics rest

Departures: policy and reference are compared for the same noise (Hi-ORS draws it anew); the conservative penalty
draws uniform actions alone, because the density of a chunk itself is not known.

Legend: B batch, N noises per chunk, E critics, H chunk horizon, h executed steps, A action width, M width that the
network pads it to.
"""

from pathlib import Path
from typing import TypeVar

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
from learner.algorithms.encoders import mean_of_words
from learner.algorithms.flow_actor import FlowActor, Lesson, rated
from learner.algorithms.interfaces import Sampling
from learner.algorithms.parts import Parts, unwrapped
from learner.algorithms.pieces import pieces
from learner.algorithms.temperature import Temperature
from learner.algorithms.turns import PolicyTurns
from learner.algorithms.window import WholeWindow
from learner.losses.actor_critic import pessimistic, soft_value, td_target
from learner.replay.batch import Batch
from learner.trainer.optimization import Optimization
from learner.trainer.publishing import Snapshot
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.config.training import AlgoConfig
from serl_launcher.networks.features import Encoding
from serl_launcher.policies import load_policy
from serl_launcher.policies.snapshots import PolicySnapshots
from serl_launcher.policies.trained_part import TrainedPart

_Value = TypeVar("_Value")


class FlowActorCritic(WholeWindow):
    """Alternates reinforcement and supervised updates of one flow policy."""

    def __init__(
        self, actor: FlowActor, critics: Critics, config: AlgoConfig, dataset: DatasetConfig,
        optimizations: tuple[Optimization, Optimization, Optimization], *, num_micro_batches: int = 1, seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        """Trains the policy of `actor`; `optimizations` are of actor, critics and temperature."""
        self._num_micro_batches = num_micro_batches
        self.policy = actor.policy
        self._flow_actor, self._critics, self._reference = actor, critics, actor.reference
        self._config, self._dataset = config, dataset
        self._actor, self._critic, self._temperature = optimizations
        self._temperature_module = unwrapped(self._temperature.module, Temperature)
        self._executed = actor.executed
        self._target = TargetCritics(critics, config.sac.soft_target_update_rate)
        self._generator = torch.Generator(self.policy.device).manual_seed(seed)
        self._part = part
        self._turns = PolicyTurns(config.sac)
        self._snapshots, self._trained_part = PolicySnapshots(), TrainedPart()
        self._parts = self._gather_parts()
        backbone = self.policy.network.paligemma_with_expert.paligemma
        self._backbone_trains = any(parameter.requires_grad for parameter in backbone.parameters())
        self.num_updates = 0
        """Of either kind."""

    @property
    def sampling(self) -> Sampling:
        """Whole chunks, with what followed the executed part."""
        sac = self._config.sac
        return Sampling(
            horizon=self.policy.config.horizon, return_horizon=self._executed, discount=sac.discount, with_next=True,
            rewards_from_labels=sac.reward_from == "label",
        )  # fmt: skip

    @property
    def num_steps_to_start(self) -> int:
        """Online steps before the first update."""
        return self._config.training_starts

    def update(self, batch: Batch) -> dict[str, float]:
        """Makes the update that is next in the cycle."""
        config = self._config
        place = self.num_updates % (config.rl_steps + config.sft_steps)
        metrics = self._reinforce(batch) if place < config.rl_steps else self._supervise(batch)
        self.num_updates += 1
        return metrics

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the policy's flow-matching error (`loss`) and the critics', on samples that are not learned from."""
        with torch.no_grad(), same_draws(self._generator):
            sample = self._sample(batch, draws=False, encoding=self._encode(batch))
            critic = float(CriticLoss(self._critics, 0.0)(sample))
            lesson = self._supervised(batch)
            with self._actor.published_weights():
                return {"loss": float(self._flow_actor(lesson)), "critic_loss": critic}

    def restart_schedule(self) -> None:
        """Begins the schedules of all learning rates anew."""
        self._parts.restart_schedules()

    def save_policy(self, directory: Path) -> None:
        """Writes the policy to act with into an existing directory."""
        with self._actor.published_weights():
            self._trained_part.save(self.policy, directory)

    def snapshot_policy(self) -> Snapshot:
        """Returns the policy to act with as it is now, to be written while training goes on."""
        with self._actor.published_weights():
            return self._snapshots.take(self.policy)

    def load_policy(self, directory: Path) -> None:
        """Takes over saved weights."""
        self.policy.load_state_dict(load_policy(directory, device=self.policy.device).state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run: the reference included."""
        return self._parts.state(self.num_updates)

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken; the policy already holds the saved weights."""
        self._parts.load(tensors, scalars)
        self._turns.take()
        self.num_updates = int(scalars["num_updates"])

    def _gather_parts(self) -> Parts:
        modules: dict[str, nn.Module] = {"critics": self._critics, "target": self._target.module}
        optimizations = {"optimize_actor": self._actor, "optimize_critics": self._critic}
        if self._reference is not None:
            modules["reference"] = self._reference.network
        if self._has_density:
            modules["temperature"] = self._temperature_module
            optimizations["optimize_temperature"] = self._temperature
        return Parts(generator=self._generator, optimizations=optimizations, modules=modules)

    @property
    def _has_density(self) -> bool:
        return self._config.sac.sampler != "euler"

    def _reinforce(self, batch: Batch) -> dict[str, float]:
        sac = self._config.sac
        encoding = self._encode(batch)
        sample = self._sample(batch, draws=sac.cql_weight > 0, encoding=encoding)
        learned = self._critic.update(self._pieces(sample, batch), self._critic.module)
        self._target.follow()
        metrics = {"loss": learned["loss"], "critic_grad_norm": learned["grad_norm"], "lr": learned["lr"],
                   "target": float(sample.target.mean())}  # fmt: skip
        if self._turns.is_due(self._critic.num_updates):
            # A backbone that trains has to run again: its activations are kept, and inside the wrapped module.
            metrics |= self._climb(batch, sample, None if self._backbone_trains else encoding)
            self._turns.take()
        return metrics

    def _climb(self, batch: Batch, sample: CriticSample, encoding: Encoding | None) -> dict[str, float]:
        temperature = self._temperature_module.value
        lesson = Lesson(
            inputs=self.policy.prepare(batch.images, batch.state, batch.prompts), noise=self._noise(len(batch)),
            observed=sample.observed, temperature=temperature if self._has_density else None, encoding=encoding,
        )  # fmt: skip
        self._flow_actor.divergence.clear()
        climbed = self._actor.update(self._pieces(lesson, batch), self._actor.module)
        metrics = {"actor_loss": climbed["loss"], "actor_grad_norm": climbed["grad_norm"]}
        if self._has_density:
            divergence = torch.cat(self._flow_actor.divergence)
            self._temperature.update([divergence], self._temperature.module)
            metrics |= {"divergence": float(divergence.mean()), "temperature": float(temperature)}
        return metrics

    def _supervise(self, batch: Batch) -> dict[str, float]:
        return self._actor.update(self._pieces(self._supervised(batch), batch), self._actor.module)

    def _pieces(self, value: _Value, batch: Batch) -> list[_Value]:
        return pieces(value, self._num_micro_batches, batch_size=len(batch))

    def _supervised(self, batch: Batch) -> Lesson:
        """Returns the flow-matching lesson; samples of failed episodes count as padding."""
        number, ranks = self._part
        device = self.policy.device
        noise, time = self.policy.draw_flow(len(batch) * ranks, 1, self._generator)
        is_pad = torch.from_numpy(batch.is_pad).to(device)
        if batch.is_successful is not None:
            is_pad = is_pad | ~torch.from_numpy(batch.is_successful).to(device)[:, None]
        inputs = self.policy.prepare(batch.images, batch.state, batch.prompts)
        return Lesson(
            inputs=inputs, noise=noise[number::ranks], time=time[number::ranks], is_pad=is_pad,
            actions=torch.from_numpy(batch.actions).to(device),
        )  # fmt: skip

    @torch.no_grad()
    def _sample(self, batch: Batch, *, draws: bool, encoding: Encoding | None = None) -> CriticSample:
        """Returns what the critics learn: the executed actions and what they turned out to be worth."""
        assert batch.next_images is not None, "Sampling asks for what follows."
        assert batch.next_state is not None
        sac, policy, device = self._config.sac, self.policy, self.policy.device
        state, next_state = torch.from_numpy(batch.state).to(device), torch.from_numpy(batch.next_state).to(device)
        executed = policy.normalize_actions(torch.from_numpy(batch.actions).to(device), state)
        prompt = mean_of_words(policy, batch.prompts) if encoding is None else None
        next_value = self._next_value(batch, next_state, prompt)
        num_real = torch.from_numpy(~batch.is_pad[:, : self._executed]).to(device).sum(dim=1)
        bias = sac.reward_bias * _geometric(num_real, sac.discount)
        reward = sac.reward_scale * torch.from_numpy(batch.reward).to(device) + bias
        sample = CriticSample(
            seen=torch.from_numpy(batch.images).to(device) if encoding is None else encoding.features, state=state,
            prompt=prompt,
            actions=rated(executed[..., : policy.spec.action_dim], self._executed),
            target=td_target(reward, torch.from_numpy(batch.discount).to(device), next_value),
        )  # fmt: skip
        if draws:
            self._add_drawn_(sample, batch)
        return sample

    def _encode(self, batch: Batch) -> Encoding | None:
        """Returns the backbone's view of the present observations, where the critics share it."""
        if self._config.sac.critic_features == "own":
            return None
        return self._flow_actor.drawing.encode(self.policy.prepare(batch.images, batch.state, batch.prompts))

    def _next_value(self, batch: Batch, next_state: Tensor, prompt: Tensor | None) -> Float[Tensor, " B"]:
        """Returns what the observations after the executed part are worth under the present policy."""
        assert batch.next_images is not None
        assert batch.next_state is not None
        sac, policy, target = self._config.sac, self.policy, self._target.module
        inputs = policy.prepare(batch.next_images, batch.next_state, batch.prompts)
        drawn = self._flow_actor.drawing.draw(inputs, self._noise(len(batch)))
        observed = (drawn.features, next_state)
        if prompt is not None:
            observed = (torch.from_numpy(batch.next_images).to(policy.device), next_state, prompt)
        q = target.value(target.features(*observed), rated(drawn.chunk, self._executed))
        value = pessimistic(q, random_subset(sac, self._generator))
        if drawn.divergence is None or not sac.backup_entropy:
            return value
        return soft_value(value, drawn.divergence, self._temperature_module.value)

    def _add_drawn_(self, sample: CriticSample, batch: Batch) -> None:
        """Adds uniform actions with their density, for the conservative penalty."""
        sac, device = self._config.sac, self.policy.device
        shape = (len(batch), sac.cql_samples, sample.actions.shape[1])
        number, ranks = self._part
        uniform = torch.rand((shape[0] * ranks, *shape[1:]), generator=self._generator, device=device)
        sample.drawn_actions = 2 * uniform[number::ranks] - 1
        sample.drawn_log_density = torch.full(shape[:2], -shape[2] * float(np.log(2.0)), device=device)
        if sac.cql_calibrated and batch.return_to_go is not None:
            sample.value_of_behaviour = torch.from_numpy(sac.reward_scale * batch.return_to_go).to(device)

    def _noise(self, count: int) -> Float[Tensor, "B N H M"]:
        """Returns this rank's rows of the noise of all ranks."""
        number, ranks = self._part
        config = self.policy.config
        shape = (count * ranks, self._flow_actor.drawing.num_noises, config.horizon, config.max_action_dim)
        return torch.randn(shape, generator=self._generator, device=self.policy.device)[number::ranks]


def _geometric(count: Tensor, discount: float) -> Tensor:
    """Returns 1 + gamma + ... over `count` terms."""
    return count.float() if discount == 1.0 else (1 - discount**count) / (1 - discount)
