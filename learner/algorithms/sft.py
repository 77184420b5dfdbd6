"""Supervised fine-tuning of a flow-matching policy: behaviour cloning of what is in the batch.

Black et al. 2024 (arXiv:2410.24164). Legend: B batch, K noise draws, H chunk horizon, A action width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from learner.algorithms.interfaces import Sampling
from learner.losses.flow_matching import flow_matching_loss
from learner.replay.batch import Batch
from learner.replay.reader import ReplayDataset
from learner.trainer.optimization import Optimization
from learner.trainer.publishing import Snapshot
from serl_launcher.config.training import AlgoConfig
from serl_launcher.networks.pi0 import ModelInputs
from serl_launcher.policies import Pi0Policy, load_policy
from serl_launcher.policies.augmentation import draw_augmentation
from serl_launcher.policies.snapshots import PolicySnapshots

_EVALUATION_SEED = 7
_EVALUATION_SAMPLES = 16
"""Samples evaluated at once."""


@dataclass(kw_only=True, slots=True)
class Part:
    """Samples with the random numbers drawn for them."""

    batch: Batch
    augmentation: Tensor | None
    """[number, B, 1, 1, 1, 1]."""
    noise: Tensor
    """[B, K, H, A], padded to the network's width."""
    time: Tensor
    """[B, K]."""


class FlowMatching(nn.Module):
    """The loss as a module, so that accelerate can wrap its forward pass (devices, precision, ranks)."""

    def __init__(self, policy: Pi0Policy) -> None:
        """Wraps `policy`; its parameters are this module's."""
        super().__init__()
        self.policy = policy

    def forward(self, inputs: ModelInputs, actions: Tensor, is_pad: Tensor, draws: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the scalar loss of one micro-batch; actions [B, H, A] in robot units, is_pad bool [B, H]."""
        return flow_matching_loss(self.policy.flow_loss(inputs, actions, is_pad, draws=draws), is_pad)


class Sft:
    """Behaviour cloning; learns from demonstrations alone."""

    def __init__(
        self, policy: Pi0Policy, config: AlgoConfig, optimization: Optimization, *, num_micro_batches: int, seed: int,
        save: Callable[[Pi0Policy, Path], None], part: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        """Trains `policy` through `optimization`, whose module is a `FlowMatching` of it.

        Args:
            policy: Has its normalisation statistics; its device is final.
            config: Batch size, augmentation.
            optimization: Owns optimizer and averages.
            num_micro_batches: Equal parts of a batch whose gradients are accumulated.
            seed: Of noise, time and augmentation; the same on every rank.
            save: Writes a policy into a directory.
            part: (number, count): random numbers are drawn for the batch of all ranks, and this rank takes every
                count-th, from `number` on, as the mixture does. An update does not depend on the number of ranks.
        """
        self.policy = policy
        self._config = config
        self._optimization = optimization
        self._num_micro_batches = num_micro_batches
        self._save = save
        self._snapshots = PolicySnapshots()
        self._part = part
        self._generator = torch.Generator(policy.device).manual_seed(seed)

    @property
    def num_updates(self) -> int:
        """Updates made, over all starts of the run."""
        return self._optimization.num_updates

    @property
    def horizon(self) -> int:
        """Actions in one chunk, H."""
        return self.policy.config.horizon

    @property
    def sampling(self) -> Sampling:
        """Chunks of the policy's horizon."""
        return Sampling(horizon=self.horizon)

    @property
    def learns_online(self) -> bool:
        """Whether the replay is learned from: only demonstrations count."""
        return False

    @property
    def num_steps_to_start(self) -> int:
        """Accepted online steps before the first update: none, demonstrations are there."""
        return 0

    @property
    def offline_fraction(self) -> float:
        """Share of a batch that comes from the demonstrations: all of it."""
        return 1.0

    def update(self, batch: Batch) -> dict[str, float]:
        """Makes one update towards the batch's chunks."""
        return self._optimization.update(self._draw(batch), self._loss)

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns the `loss` of the published weights, with noise that is the same every time."""
        generator = torch.Generator(self.policy.device).manual_seed(_EVALUATION_SEED)
        losses, counts = [], []
        with torch.no_grad(), self._optimization.published_weights():
            for start in range(0, len(batch), _EVALUATION_SAMPLES):
                rows = part_of(batch, slice(start, start + _EVALUATION_SAMPLES))
                inputs = self.policy.prepare(rows.images, rows.state, rows.prompts)
                draws = self.policy.draw_flow(len(rows), self._config.noise_samples, generator)
                actions, is_pad = self._tensors(rows)
                error = self.policy.flow_loss(inputs, actions, is_pad, draws=draws)
                losses.append(float(flow_matching_loss(error, is_pad)))
                counts.append(len(rows))
        return {"loss": float(np.average(losses, weights=counts))}

    def restart_schedule(self) -> None:
        """Begins the schedule of the learning rate anew."""
        self._optimization.restart_schedule()

    def online_weights(self, replay: ReplayDataset) -> np.ndarray:
        """Returns zeros: cloning demonstrations learns nothing from online steps."""
        return np.zeros(replay.num_steps)

    def accepted(self, replay: ReplayDataset) -> np.ndarray:
        """Returns False for every online episode, bool [E]."""
        return np.zeros(replay.num_episodes, dtype=bool)

    def save_policy(self, directory: Path) -> None:
        """Writes the policy to act with into an existing directory."""
        with self._optimization.published_weights():
            self._save(self.policy, directory)

    def load_policy(self, directory: Path) -> None:
        """Takes over saved weights."""
        self.policy.load_state_dict(load_policy(directory, device=self.policy.device).state_dict())

    def snapshot_policy(self) -> Snapshot:
        """Returns the policy to act with as it is now, to be written while training goes on."""
        with self._optimization.published_weights():
            return self._snapshots.take(self.policy)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run."""
        tensors = {**self._optimization.tensors(), "rng/noise": self._generator.get_state()}
        return tensors, {"num_updates": self.num_updates, "schedule_start": self._optimization.schedule_start}

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken; the policy already holds the saved weights."""
        self._generator.set_state(tensors["rng/noise"].cpu())
        optimization = {key: value for key, value in tensors.items() if not key.startswith("rng/")}
        start = int(scalars.get("schedule_start", 0))
        self._optimization.load(optimization, int(scalars["num_updates"]), schedule_start=start)

    def _draw(self, batch: Batch) -> list[Part]:
        """Returns the micro-batches with their random numbers, which do not depend on how the batch is divided."""
        number, count = self._part
        total = len(batch) * count
        kind = self._config.image_augmentation
        augmentation = None if kind == "none" else draw_augmentation(total, self._generator, kind)
        noise, time = self.policy.draw_flow(total, self._config.noise_samples, self._generator)
        size = len(batch) // self._num_micro_batches
        parts = []
        for place, micro_batch in enumerate(split(batch, self._num_micro_batches)):
            rows = slice(number + place * size * count, number + (place + 1) * size * count, count)
            drawn = None if augmentation is None else augmentation[:, rows]
            parts.append(Part(batch=micro_batch, augmentation=drawn, noise=noise[rows], time=time[rows]))
        return parts

    def _loss(self, part: Part) -> Tensor:
        batch = part.batch
        inputs = self.policy.prepare(batch.images, batch.state, batch.prompts, augment=part.augmentation)
        actions, is_pad = self._tensors(batch)
        return self._optimization.module(inputs, actions, is_pad, (part.noise, part.time))

    def _tensors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self.policy.device
        return torch.from_numpy(batch.actions).to(device), torch.from_numpy(batch.is_pad).to(device)


def split(batch: Batch, num_parts: int) -> list[Batch]:
    """Returns equal parts of a batch, in order; the arrays are views. Next observations are left out."""
    if num_parts == 1:
        return [batch]
    if len(batch) % num_parts:
        raise ValueError(f"Expected a batch that divides into {num_parts} equal parts, got {len(batch)} samples.")
    size = len(batch) // num_parts
    return [part_of(batch, slice(start, start + size)) for start in range(0, len(batch), size)]


def part_of(batch: Batch, rows: slice) -> Batch:
    """Returns some samples of a batch, without next observations; the arrays are views."""
    return Batch(
        images=batch.images[rows], state=batch.state[rows], prompts=batch.prompts[rows], actions=batch.actions[rows],
        is_pad=batch.is_pad[rows], reward=batch.reward[rows], discount=batch.discount[rows],
        is_terminal=batch.is_terminal[rows],
    )  # fmt: skip
