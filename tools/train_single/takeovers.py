"""When a scripted expert takes over in training: often at first, never in the end (as HIL-SERL's authors advise)."""

import numpy as np

from tools.train_single.experts import Expert

_EARLIEST, _LATEST = 5, 40
"""Tick of an episode at which the expert may take over, to bring it to its end."""


class Takeovers:
    """Draws in which episodes the expert takes over, and from which tick on."""

    def __init__(self, expert: Expert, *, probability: float, fades_until: float, seed: int) -> None:
        """Takes over with `probability` in the first episode; it falls to 0 at the share `fades_until` of training."""
        self._expert = expert
        self._probability, self._fades_until = probability, fades_until
        self._rng = np.random.default_rng(seed)
        self._from_tick: int | None = None
        self._tick = 0

    def begin(self, progress: float) -> None:
        """A new episode begins, after a share `progress` of training."""
        left = max(0.0, 1 - progress / self._fades_until)
        is_helped = self._rng.random() < self._probability * left
        self._from_tick = int(self._rng.integers(_EARLIEST, _LATEST)) if is_helped else None
        self._tick = 0
        self._expert.begin()

    def command(self, state: np.ndarray) -> np.ndarray | None:
        """Returns the expert's command, float32 [A], where the expert is in control; called once per tick."""
        self._tick += 1
        if self._from_tick is None or self._tick < self._from_tick:
            return None
        return self._expert.act(state)
