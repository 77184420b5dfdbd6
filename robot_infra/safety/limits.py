"""What every command of one robot must respect: bounds, change per tick, acceleration, jerk, workspace.

Legend: A action, N configurations, P points of the robot.

Everything that concerns motion is per control tick, so that one tick is the unit of time: a speed of 2 rad/s at 10 Hz
is a change of 0.2 rad per tick.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_infra.safety.workspace import Workspace, workspace_of
from serl_launcher.errors import ConfigError, SafetyError
from serl_launcher.specs import RobotSpec

WATCHDOG_S = 0.1
"""Silence of whoever commands the robot, beyond the end of a tick, after which it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyLimits:
    """What every command of one robot must respect; all arrays are float32 [A] in robot units.

    Example:
        limits_of(spec, max_change=[0.2])
    """

    low: np.ndarray
    high: np.ndarray
    max_change: np.ndarray
    """Most that a command may differ from the one before (speed); infinity where only the bounds count."""
    max_acceleration: np.ndarray
    """Most that this change may differ from the one before, per tick^2; infinity: not limited."""
    max_jerk: np.ndarray
    """Most that the acceleration may differ from the one before, per tick^3; infinity: not limited."""
    max_jump: np.ndarray
    """A wish that is further than this from the last command is a fault, not a motion to be shortened: the start of a
    chunk that does not continue where the robot is. Infinity: any wish is followed as far as the limits allow."""
    workspace: Workspace | None = None

    @property
    def is_smooth(self) -> bool:
        """Whether acceleration or jerk is limited anywhere."""
        return bool(np.isfinite(self.max_acceleration).any() or np.isfinite(self.max_jerk).any())


def limits_of(
    spec: RobotSpec,
    max_change: Sequence[float],
    *,
    max_jump: Sequence[float] = (),
    workspace: Workspace | None = None,
) -> SafetyLimits:
    """Returns all limits of the robot, tightened by the configured change per tick.

    Args:
        spec: The robot; its speeds are per second, here they become per tick. Grippers have entries like any joint.
        max_change: Nothing, one number for all, or one per action.
        max_jump: Likewise, in place of the robot's own; an action that is further from the last command is refused.
        workspace: The box for the points of the robot; None: the one in its spec, where there is one.

    Raises:
        ConfigError: A list has another length, or holds something that is not positive.
    """
    low, high = spec.action_bounds()
    ticks = np.float32(spec.control_hz)
    change = _per_action(spec, "actor.max_change", max_change)
    return SafetyLimits(
        low=low,
        high=high,
        max_change=np.minimum(change, _per_action(spec, "max_speed", spec.max_speed) / ticks),
        max_acceleration=_per_action(spec, "max_acceleration", spec.max_acceleration) / ticks**2,
        max_jerk=_per_action(spec, "max_jerk", spec.max_jerk) / ticks**3,
        max_jump=_per_action(spec, "max_jump", max_jump or spec.max_jump),
        workspace=workspace_of(spec) if workspace is None else workspace,
    )


def _per_action(spec: RobotSpec, what: str, values: Sequence[float]) -> np.ndarray:
    if len(values) not in (0, 1, spec.action_dim):
        raise ConfigError(
            f"{what} must hold no number, one, or {spec.action_dim} (one per action of {spec.name!r}); "
            f"got {len(values)}."
        )
    if any(not value > 0 for value in values):
        raise ConfigError(f"{what} must be positive, got {list(values)}.")
    numbers = np.asarray(list(values) or [np.inf], np.float32)
    return np.broadcast_to(numbers, (spec.action_dim,)).copy()


def acts_by_position(spec: RobotSpec) -> bool:
    """Whether its actions are positions that it measures too: the state has a dimension of each action's name."""
    return set(spec.action_names) <= set(spec.state_names)


def standing_still(spec: RobotSpec, state: np.ndarray) -> np.ndarray | None:
    """Returns the command that moves nothing: the measured positions [A]; None where actions are something else."""
    if not acts_by_position(spec):
        return None
    return state[[spec.state_names.index(name) for name in spec.action_names]].astype(np.float32)


def require_finite(action: np.ndarray) -> np.ndarray:
    """Returns the action unchanged; raises SafetyError that names the first joint which is no finite number."""
    if not np.isfinite(action).all():
        joint = int(np.argmin(np.isfinite(action)))
        raise SafetyError(f"Action is not finite at joint {joint}: {action[joint]}. The robot was not commanded.")
    return action


def require_shape(action: np.ndarray, limits: SafetyLimits) -> np.ndarray:
    """Returns the action unchanged; raises SafetyError where it has another width than the robot."""
    if action.shape != limits.low.shape:
        raise SafetyError(
            f"Expected an action of shape {limits.low.shape}, got {action.shape}. The robot was not commanded."
        )
    return action


def require_continuous(action: np.ndarray, previous: np.ndarray, limits: SafetyLimits) -> np.ndarray:
    """Returns the action unchanged; raises SafetyError where it does not continue the command before."""
    excess = np.abs(action - previous) - limits.max_jump
    if (excess > 0).any():
        joint = int(np.argmax(excess))
        raise SafetyError(
            f"Expected an action within {limits.max_jump[joint]:g} of the last command at joint {joint} "
            f"({previous[joint]:g}), got {action[joint]:g}. The robot was not commanded; "
            "check the policy, or raise environment.max_jump (actor.max_jump has precedence)."
        )
    return action


def within_bounds(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns a copy of the action [A], clipped to the bounds."""
    return np.clip(action, low, high)


def within_reach(action: np.ndarray, previous: np.ndarray, max_change: np.ndarray) -> np.ndarray:
    """Returns a copy of the action [A], no further than `max_change` from the command before."""
    return np.clip(action, previous - max_change, previous + max_change)


def admit(action: np.ndarray, previous: np.ndarray | None, limits: SafetyLimits) -> np.ndarray:
    """Returns the command that may reach a robot without limits on acceleration, float32 [A].

    `Gate` is what a control loop uses; this is its rule where only bounds and change per tick count. The bounds have
    the last word: a robot that stands outside of them is brought back at once.

    Args:
        action: What policy or person want, [A] in robot units.
        previous: The command that was executed in the tick before; None where there was none.
        limits: What the robot allows.

    Raises:
        SafetyError: The action has another width or is not finite. Nothing may be commanded then.
    """
    command = require_finite(require_shape(action, limits))
    if previous is not None:
        command = within_reach(command, require_finite(previous), limits.max_change)
    return within_bounds(command, limits.low, limits.high).astype(np.float32)
