"""`sac_pi0`: a flow policy that climbs chunked critics, held near a frozen copy of its beginning.

The name is that of the published configuration. What it is: a behaviour-regularised actor-critic (BRAC,
arXiv:1911.11361) over action chunks (Q-chunking, arXiv:2507.07969). A deterministic sampler has no log-probability, so
there is neither an entropy nor a temperature here. The critics rate the h actions that are executed before the next
decision: y = sum of gamma ** i * r_i + gamma ** h * min_k Q_k(s', a'), a' drawn from the present policy. The policy's
gradient goes through all steps of its sampler.

    update:   0 ... rl_steps - 1          critics; every `cta_ratio`-th also the policy
              ... rl_steps + sft_steps    flow matching on successful episodes and demonstrations; critics rest

Departures: policy and reference are compared for the same noise (Hi-ORS draws it anew); the conservative penalty
draws uniform actions alone, because the flow's density is not known.

Legend: B batch, E critics, H chunk horizon, h executed steps, A action width, M width that the network pads it to.
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
    tensors_below,
)
from learner.algorithms.flow_actor import FlowActor, Lesson, rated
from learner.algorithms.interfaces import Sampling
from learner.losses.actor_critic import pessimistic, td_target
from learner.replay.batch import Batch
from learner.replay.reader import ReplayDataset
from learner.replay.views import newest_steps
from learner.trainer.optimization import Optimization
from learner.trainer.publishing import Snapshot
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.config.training import AlgoConfig
from serl_launcher.policies import load_policy, save_policy
from serl_launcher.policies.snapshots import PolicySnapshots


class FlowActorCritic:
    """Alternates reinforcement and supervised updates of one flow policy."""

    def __init__(
        self, actor: FlowActor, critics: Critics, config: AlgoConfig, dataset: DatasetConfig,
        optimizations: tuple[Optimization, Optimization], *, executed: int, seed: int, part: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        """Trains the policy of `actor`; `optimizations` are the actor's and the critics', `executed` is h."""
        self.policy = actor.policy
        self._critics, self._reference = critics, actor.reference
        self._config, self._dataset = config, dataset
        self._actor, self._critic = optimizations
        self._executed = executed
        self._target = TargetCritics(critics, config.sac.soft_target_update_rate)
        self._generator = torch.Generator(self.policy.device).manual_seed(seed)
        self._part = part
        self._snapshots = PolicySnapshots()
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
    def learns_online(self) -> bool:
        """Whether the replay is learned from."""
        return True

    @property
    def num_steps_to_start(self) -> int:
        """Online steps before the first update."""
        return self._config.training_starts

    @property
    def offline_fraction(self) -> float:
        """Share of a batch that comes from the demonstrations."""
        return self._dataset.offline_fraction

    def online_weights(self, replay: ReplayDataset) -> np.ndarray:
        """Returns 1 for every step of the sampling window: critics learn from failures, too."""
        return newest_steps(replay, self._dataset.capacity)

    def accepted(self, replay: ReplayDataset) -> np.ndarray:
        """Returns True for every episode, bool [E]."""
        return np.ones(replay.num_episodes, dtype=bool)

    def update(self, batch: Batch) -> dict[str, float]:
        """Makes the update that is next in the cycle."""
        config = self._config
        place = self.num_updates % (config.rl_steps + config.sft_steps)
        metrics = self._reinforce(batch) if place < config.rl_steps else self._supervise(batch)
        self.num_updates += 1
        return metrics

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the critics' error and the flow-matching error on samples that are not learned from."""
        with torch.no_grad(), same_draws(self._generator):
            critic = float(CriticLoss(self._critics, 0.0)(self._sample(batch, draws=False)))
            lesson = self._supervised(batch)
            with self._actor.published_weights():
                return {"loss": critic, "flow_loss": float(FlowActor.forward(self._unwrapped(), lesson))}

    def restart_schedule(self) -> None:
        """Begins the schedules of all learning rates anew."""
        self._actor.restart_schedule()
        self._critic.restart_schedule()

    def save_policy(self, directory: Path) -> None:
        """Writes the policy to act with into an existing directory."""
        with self._actor.published_weights():
            save_policy(self.policy, directory)

    def snapshot_policy(self) -> Snapshot:
        """Returns the policy to act with as it is now, to be written while training goes on."""
        with self._actor.published_weights():
            return self._snapshots.take(self.policy)

    def load_policy(self, directory: Path) -> None:
        """Takes over saved weights."""
        self.policy.load_state_dict(load_policy(directory, device=self.policy.device).state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run: the reference included."""
        tensors = {"rng/noise": self._generator.get_state()}
        for name, optimization in self._optimizations().items():
            tensors |= {f"{name}/{key}": value for key, value in optimization.tensors().items()}
        for name, module in self._modules().items():
            tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
        counts = {f"{name}_updates": each.num_updates for name, each in self._optimizations().items()}
        starts = {f"{name}_start": each.schedule_start for name, each in self._optimizations().items()}
        return tensors, {"num_updates": self.num_updates, **counts, **starts}

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken; the policy already holds the saved weights."""
        self._generator.set_state(tensors["rng/noise"].cpu())
        for name, module in self._modules().items():
            module.load_state_dict(tensors_below(tensors, name))
        for name, optimization in self._optimizations().items():
            start = int(scalars[f"{name}_start"])
            optimization.load(tensors_below(tensors, name), int(scalars[f"{name}_updates"]), schedule_start=start)
        self.num_updates = int(scalars["num_updates"])

    def _optimizations(self) -> dict[str, Optimization]:
        return {"optimize_actor": self._actor, "optimize_critics": self._critic}

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"critics": self._critics, "target": self._target.module}
        return modules if self._reference is None else {**modules, "reference": self._reference.network}

    def _unwrapped(self) -> FlowActor:
        return next(each for each in self._actor.module.modules() if isinstance(each, FlowActor))

    def _reinforce(self, batch: Batch) -> dict[str, float]:
        sac = self._config.sac
        sample = self._sample(batch, draws=sac.cql_weight > 0)
        learned = self._critic.update([sample], self._critic.module)
        self._target.follow()
        metrics = {"loss": learned["loss"], "critic_grad_norm": learned["grad_norm"], "lr": learned["lr"],
                   "target": float(sample.target.mean())}  # fmt: skip
        num_updates = self._critic.num_updates
        if num_updates > sac.actor_training_starts and num_updates % sac.cta_ratio == 0:
            inputs = self.policy.prepare(batch.images, batch.state, batch.prompts)
            lesson = Lesson(inputs=inputs, noise=self._noise(len(batch)), images=sample.images, state=sample.state)
            climbed = self._actor.update([lesson], self._actor.module)
            metrics |= {"actor_loss": climbed["loss"], "actor_grad_norm": climbed["grad_norm"]}
        return metrics

    def _supervise(self, batch: Batch) -> dict[str, float]:
        return self._actor.update([self._supervised(batch)], self._actor.module)

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
    def _sample(self, batch: Batch, *, draws: bool) -> CriticSample:
        """Returns what the critics learn: the executed actions and what they turned out to be worth."""
        assert batch.next_images is not None, "Sampling asks for what follows."
        assert batch.next_state is not None
        sac, policy, device = self._config.sac, self.policy, self.policy.device
        state, next_state = torch.from_numpy(batch.state).to(device), torch.from_numpy(batch.next_state).to(device)
        executed = policy.normalize_actions(torch.from_numpy(batch.actions).to(device), state)
        inputs = policy.prepare(batch.next_images, batch.next_state, batch.prompts)
        following = policy.network.sample(inputs, self._noise(len(batch)))[:, 0, :, : policy.spec.action_dim]
        target = self._target.module
        features = target.features(torch.from_numpy(batch.next_images).to(device), next_state)
        next_value = pessimistic(
            target.value(features, rated(following, self._executed)), random_subset(sac, self._generator)
        )
        num_real = torch.from_numpy(~batch.is_pad[:, : self._executed]).to(device).sum(dim=1)
        bias = sac.reward_bias * _geometric(num_real, sac.discount)
        reward = sac.reward_scale * torch.from_numpy(batch.reward).to(device) + bias
        sample = CriticSample(
            images=torch.from_numpy(batch.images).to(device), state=state,
            actions=rated(executed[..., : policy.spec.action_dim], self._executed),
            target=td_target(reward, torch.from_numpy(batch.discount).to(device), next_value),
        )  # fmt: skip
        if draws:
            shape = (len(batch), sac.cql_samples, sample.actions.shape[1])
            number, ranks = self._part
            uniform = torch.rand((shape[0] * ranks, *shape[1:]), generator=self._generator, device=device)
            sample.drawn_actions = 2 * uniform[number::ranks] - 1
            sample.drawn_log_density = torch.full(shape[:2], -shape[2] * float(np.log(2.0)), device=device)
            if sac.cql_calibrated and batch.return_to_go is not None:
                sample.value_of_behaviour = torch.from_numpy(sac.reward_scale * batch.return_to_go).to(device)
        return sample

    def _noise(self, count: int) -> Float[Tensor, "B 1 H M"]:
        """Returns this rank's rows of the noise of all ranks."""
        number, ranks = self._part
        config = self.policy.config
        shape = (count * ranks, 1, config.horizon, config.max_action_dim)
        return torch.randn(shape, generator=self._generator, device=self.policy.device)[number::ranks]


def _geometric(count: Tensor, discount: float) -> Tensor:
    """Returns 1 + gamma + ... over `count` terms."""
    return count.float() if discount == 1.0 else (1 - discount**count) / (1 - discount)
