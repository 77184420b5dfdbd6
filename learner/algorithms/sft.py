"""Supervised fine-tuning of a flow-matching policy: behaviour cloning of what is in the batch.

Black et al. 2024 (arXiv:2410.24164). Legend: B batch, K noise draws, H chunk horizon, A action width.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from learner.losses.flow_matching import flow_matching_loss
from learner.replay.batch import Batch
from learner.replay.reader import ReplayDataset
from learner.trainer.optimization import Optimization
from serl_launcher.config.training import AlgoConfig
from serl_launcher.networks.pi0 import ModelInputs
from serl_launcher.policies import Pi0Policy


class FlowMatching(nn.Module):
    """The loss as a module, so that accelerate can wrap its forward pass (devices, precision, ranks)."""

    def __init__(self, policy: Pi0Policy, noise_samples: int) -> None:
        """Wraps `policy`; its parameters are this module's."""
        super().__init__()
        self.policy = policy
        self._noise_samples = noise_samples

    def forward(self, inputs: ModelInputs, actions: Tensor, is_pad: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the scalar loss of one micro-batch; actions [B, H, A] in robot units, is_pad bool [B, H]."""
        error = self.policy.flow_loss(inputs, actions, is_pad, noise_samples=self._noise_samples, generator=generator)
        return flow_matching_loss(error, is_pad)


class Sft:
    """Behaviour cloning; learns from demonstrations alone."""

    def __init__(
        self, policy: Pi0Policy, config: AlgoConfig, optimization: Optimization, *, num_micro_batches: int, seed: int,
        save: Callable[[Pi0Policy, Path], None],
    ) -> None:  # fmt: skip
        """Trains `policy` through `optimization`, whose module is a `FlowMatching` of it.

        Args:
            policy: Has its normalisation statistics; its device is final.
            config: Batch size, augmentation.
            optimization: Owns optimizer and averages.
            num_micro_batches: Equal parts of a batch whose gradients are accumulated.
            seed: Of noise, time and augmentation; differs between ranks.
            save: Writes a policy into a directory.
        """
        self.policy = policy
        self._config = config
        self._optimization = optimization
        self._num_micro_batches = num_micro_batches
        self._save = save
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
        return self._optimization.update(split(batch, self._num_micro_batches), self._loss)

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

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run."""
        tensors = {**self._optimization.tensors(), "rng/noise": self._generator.get_state()}
        return tensors, {"num_updates": self.num_updates}

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken; the policy already holds the saved weights."""
        self._generator.set_state(tensors["rng/noise"].cpu())
        optimization = {key: value for key, value in tensors.items() if not key.startswith("rng/")}
        self._optimization.load(optimization, int(scalars["num_updates"]))

    def _loss(self, batch: Batch) -> Tensor:
        augment = self._generator if self._config.image_augmentation else None
        inputs = self.policy.prepare(batch.images, batch.state, batch.prompts, augment=augment)
        device = self.policy.device
        actions, is_pad = torch.from_numpy(batch.actions).to(device), torch.from_numpy(batch.is_pad).to(device)
        return self._optimization.module(inputs, actions, is_pad, self._generator)


def split(batch: Batch, num_parts: int) -> list[Batch]:
    """Returns equal parts of a batch, in order; the arrays are views. Next observations are left out."""
    if num_parts == 1:
        return [batch]
    if len(batch) % num_parts:
        raise ValueError(f"Expected a batch that divides into {num_parts} equal parts, got {len(batch)} samples.")
    size = len(batch) // num_parts
    return [_part(batch, slice(start, start + size)) for start in range(0, len(batch), size)]


def _part(batch: Batch, rows: slice) -> Batch:
    return Batch(
        images=batch.images[rows], state=batch.state[rows], prompts=batch.prompts[rows], actions=batch.actions[rows],
        is_pad=batch.is_pad[rows], reward=batch.reward[rows], discount=batch.discount[rows],
        is_terminal=batch.is_terminal[rows],
    )  # fmt: skip
