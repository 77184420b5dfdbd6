"""What algorithms with critics learn from: every step of the sampling window, whoever acted and however it ended."""

import numpy as np

from learner.replay.reader import ReplayDataset
from learner.replay.views import sampling_window
from serl_launcher.config.dataset import DatasetConfig


class WholeWindow:
    """The part of `Algorithm` that says what is sampled."""

    _dataset: DatasetConfig

    @property
    def learns_online(self) -> bool:
        """Whether the replay is learned from."""
        return True

    @property
    def offline_fraction(self) -> float:
        """Share of a batch that comes from the demonstrations (RLPD: one half)."""
        return self._dataset.offline_fraction

    def online_weights(self, replay: ReplayDataset) -> np.ndarray:
        """Returns 1 for every step of the sampling window, float64 [N]: critics learn from failures, too."""
        return sampling_window(replay, self._dataset)

    def accepted(self, replay: ReplayDataset) -> np.ndarray:
        """Returns True for every episode, bool [E]."""
        return np.ones(replay.num_episodes, dtype=bool)
