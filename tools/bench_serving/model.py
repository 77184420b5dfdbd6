"""A stand-in for a policy on an accelerator: a call takes its time, however many observations it has."""

import time

import numpy as np

from serl_launcher.specs import RobotSpec

HORIZON = 50


class PacedPolicy:
    """Sleeps, then returns chunks of zeros: what is measured is everything around a model."""

    def __init__(self, spec: RobotSpec, *, model_ms: float, per_item_ms: float) -> None:
        """Takes `model_ms` per call and `per_item_ms` per observation."""
        self.spec = spec
        self._model_s, self._per_item_s = 1e-3 * model_ms, 1e-3 * per_item_ms

    def act(self, images: np.ndarray, state: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Returns float32 zeros [B, HORIZON, A]."""
        duration_s = self._model_s + self._per_item_s * len(prompts)
        if duration_s > 0:
            time.sleep(duration_s)
        return np.zeros((len(prompts), HORIZON, self.spec.action_dim), np.float32)
