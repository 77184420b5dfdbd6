"""What the trainer needs of an algorithm, and what an algorithm needs of a policy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from learner.replay.batch import Batch
from learner.replay.reader import ReplayDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How an algorithm wants its samples."""

    horizon: int
    """Actions per sample, H."""
    return_horizon: int | None = None
    """Steps until the next decision, over which rewards are summed; None: the horizon."""
    discount: float = 1.0
    """Gamma per step."""
    rewards_from_labels: bool = False
    """Whether rewards and terminations follow from the labels of episodes, not from what was recorded."""
    with_next: bool = False
    """Whether it needs the observation after the chunk, which costs as many images again."""


class Algorithm(Protocol):
    """One way of learning. The trainer knows none by name.

    To add one: implement this beside `sft.py` and name it in `build.py`.
    """

    @property
    def num_updates(self) -> int:
        """Updates made, over all starts of the run."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How samples are to be assembled."""
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
        """Learns from one batch (of this rank); returns metrics, `loss` among them.

        Raises:
            NotFinite: The update was skipped; the weights that publish are unchanged.
        """
        ...

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """Returns what the policy to act with is worth on samples that are never learned from: `loss`, and more."""
        ...

    def restart_schedule(self) -> None:
        """Begins the schedules of the learning rates anew."""
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

    def load_policy(self, directory: Path) -> None:
        """Takes over the weights that `save_policy` wrote; call `load_state` next."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns what, with the saved policy, continues this run: tensors and scalars.

        Every rank calls it, or none.
        """
        ...

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken."""
        ...
