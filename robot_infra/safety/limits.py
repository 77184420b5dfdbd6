"""The last gate before a robot: finite, inside its bounds, and never further than one tick may go.

Legend: A action.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serl_launcher.errors import ConfigError, SafetyError
from serl_launcher.specs import RobotSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyLimits:
    """What every command of one robot must respect; all arrays are float32 [A] in robot units.

    Example:
        SafetyLimits(low=np.full(14, -3.1), high=np.full(14, 3.1), max_change=np.full(14, 0.2))
    """

    low: np.ndarray
    high: np.ndarray
    max_change: np.ndarray
    """Most that a command may differ from the one before; infinity where only the bounds count."""


def limits_of(spec: RobotSpec, max_change: Sequence[float]) -> SafetyLimits:
    """Returns the bounds of the robot with the configured change per tick: nothing, one for all, or one per action."""
    if len(max_change) not in (0, 1, spec.action_dim):
        raise ConfigError(
            f"actor.max_change must hold no number, one, or {spec.action_dim} (one per action of {spec.name!r}); "
            f"got {len(max_change)}."
        )
    if any(not change > 0 for change in max_change):
        raise ConfigError(f"actor.max_change must be positive, got {list(max_change)}.")
    low, high = spec.action_bounds()
    change = np.asarray(list(max_change) or [np.inf], np.float32)
    return SafetyLimits(low=low, high=high, max_change=np.broadcast_to(change, low.shape))


def standing_still(spec: RobotSpec, state: np.ndarray) -> np.ndarray | None:
    """Returns the command that moves nothing: the measured state [A], where actions are its own positions."""
    return state.astype(np.float32) if spec.state_names == spec.action_names else None


def require_finite(action: np.ndarray) -> np.ndarray:
    """Returns the action unchanged; raises SafetyError that names the first joint which is no finite number."""
    if not np.isfinite(action).all():
        joint = int(np.argmin(np.isfinite(action)))
        raise SafetyError(f"Action is not finite at joint {joint}: {action[joint]}. The robot was not commanded.")
    return action


def within_bounds(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns a copy of the action [A], clipped to the bounds."""
    return np.clip(action, low, high)


def within_reach(action: np.ndarray, previous: np.ndarray, max_change: np.ndarray) -> np.ndarray:
    """Returns a copy of the action [A], no further than `max_change` from the command before."""
    return np.clip(action, previous - max_change, previous + max_change)


def admit(action: np.ndarray, previous: np.ndarray | None, limits: SafetyLimits) -> np.ndarray:
    """Returns the command that may reach the robot, float32 [A].

    The bounds have the last word: a robot that stands outside of them is brought back at once.

    Args:
        action: What policy or person want, [A] in robot units.
        previous: The command that was executed in the tick before; None where there was none.
        limits: What the robot allows.

    Raises:
        SafetyError: The action has another width or is not finite. Nothing may be commanded then.
    """
    if action.shape != limits.low.shape:
        raise SafetyError(
            f"Expected an action of shape {limits.low.shape}, got {action.shape}. The robot was not commanded."
        )
    command = require_finite(action)
    if previous is not None:
        command = within_reach(command, require_finite(previous), limits.max_change)
    return within_bounds(command, limits.low, limits.high).astype(np.float32)
