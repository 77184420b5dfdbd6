"""What the trainer needs of an algorithm, and what an algorithm needs of a policy."""

from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from learner.replay.batch import Batch
from learner.replay.reader import ReplayDataset


class Algorithm(Protocol):
    """One way of learning. The trainer knows none by name.

    To add one: implement this beside `sft.py` and name it in `build.py`.
    """

    @property
    def num_updates(self) -> int:
        """Updates made, over all starts of the run."""
        ...

    @property
    def learns_online(self) -> bool:
        """Whether the replay is learned from."""
        ...

    @property
    def num_steps_to_start(self) -> int:
        """Accepted online steps before the first update."""
        ...

    @property
    def offline_fraction(self) -> float:
        """Share of a batch that comes from the demonstrations."""
        ...

    def update(self, batch: Batch) -> dict[str, float]:
        """Learns from one batch; returns metrics such as `loss`, `grad_norm`, `lr`."""
        ...

    def online_weights(self, replay: ReplayDataset) -> np.ndarray:
        """Returns float64 [N]: the relative chance of each online step; 0 where it is not learned from."""
        ...

    def accepted(self, replay: ReplayDataset) -> np.ndarray:
        """Returns bool [E]: which online episodes are learned from."""
        ...

    def save_policy(self, directory: Path) -> None:
        """Writes the policy to act with (averaged weights, where there are some) into an existing directory."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run: tensors and scalars."""
        ...

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken."""
        ...
