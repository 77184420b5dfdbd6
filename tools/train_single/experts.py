"""Scripted experts for simulated tasks: they give demonstrations and take over, as a person would."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError


class Expert(Protocol):
    """Solves a task from what its state tells."""

    def begin(self) -> None:
        """The expert takes over now; nothing of an earlier takeover counts."""
        ...

    def act(self, state: np.ndarray) -> np.ndarray:
        """Returns the command, float32 [A], after float32 [S]."""
        ...


class MetaWorldExpert:
    """The scripted policies that Meta-World brings."""

    def __init__(self, name: str) -> None:
        """Solves the task of that name, such as `reach-v3`."""
        self._make: Callable[[], Any] = importlib.import_module("metaworld.policies").ENV_POLICY_MAP[name]
        self._policy = self._make()

    def begin(self) -> None:
        self._policy = self._make()

    def act(self, state: np.ndarray) -> np.ndarray:
        return np.clip(self._policy.get_action(state.astype(np.float64)), -1, 1).astype(np.float32)


class PandaExpert:
    """Lifts gym-hil's cube: above it, down, close, up. Actions are motions of the hand in metres and of the gripper."""

    _HAND, _CUBE, _GRIPPER = slice(15, 18), slice(18, 21), 14
    _HOVER_M, _NEAR_M, _CLOSING_TICKS = 0.06, 0.012, 4

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        """Stays within bounds, float32 [4]."""
        self._low, self._high = low, high
        self._num_closing = 0

    def begin(self) -> None:
        self._num_closing = 0

    def act(self, state: np.ndarray) -> np.ndarray:
        gap = state[self._CUBE] - state[self._HAND]
        is_above = np.linalg.norm(gap[:2]) < self._NEAR_M
        grip = -1.0
        if is_above and abs(gap[2]) < self._NEAR_M:
            self._num_closing += 1
        if self._num_closing:
            grip = 1.0
            gap = gap * np.array([1, 1, 0]) if self._num_closing < self._CLOSING_TICKS else np.array([0, 0, 1])
            self._num_closing += 1
        elif not is_above:
            gap[2] += self._HOVER_M
        return np.clip(np.append(gap, grip), self._low, self._high).astype(np.float32)


def expert_of(config: EnvironmentConfig, low: np.ndarray, high: np.ndarray) -> Expert:
    """Returns the expert of a configured task; raises ConfigError where nobody knows it."""
    task, made = config.options.get("id", ""), config.options.get("make", {})
    if task == "Meta-World/MT1":
        return MetaWorldExpert(made["env_name"])
    if task == "gym_hil/PandaPickCubeBase-v0":
        return PandaExpert(low, high)
    raise ConfigError(f"Expected a task of Meta-World or gym_hil/PandaPickCubeBase-v0 for an expert, got {task!r}.")
