"""Resets as trajectories in time: never a step command."""

import numpy as np

from robot_infra.safety.limits import SafetyLimits, require_finite

PEAK_SPEED, PEAK_ACCELERATION, PEAK_JERK = 15 / 8, 10 / np.sqrt(3), 60.0
"""Largest derivatives of the quintic 10 s^3 - 15 s^4 + 6 s^5, for unit distance and duration."""


def reset_trajectory(start: np.ndarray, goal: np.ndarray, limits: SafetyLimits, *, min_ticks: int = 1) -> np.ndarray:
    """Returns commands [T, A] from rest at `start` to rest at `goal`, all joints together, within every limit.

    A quintic in time (minimum jerk; Flash and Hogan 1985), as long as the slowest joint needs. The goal is clipped to
    the bounds. The robot's workspace is not looked at: choose a reset pose that a straight motion in joint space
    reaches.

    Args:
        start: Where the robot stands, [A].
        goal: Where it is to go, [A].
        limits: What the robot allows, per tick.
        min_ticks: The trajectory takes at least this many ticks.

    Raises:
        SafetyError: Start or goal is not finite.
    """
    start = require_finite(np.asarray(start, np.float64))
    goal = np.clip(require_finite(np.asarray(goal, np.float64)), limits.low, limits.high)
    distance = np.abs(goal - start)
    needed = np.stack(
        [
            PEAK_SPEED * distance / limits.max_change,
            np.sqrt(PEAK_ACCELERATION * distance / limits.max_acceleration),
            np.cbrt(PEAK_JERK * distance / limits.max_jerk),
        ]
    )
    num_ticks = max(min_ticks, int(np.ceil(needed.max(initial=0.0) - 1e-5)), 1)
    share = np.arange(1, num_ticks + 1)[:, None] / num_ticks
    progress = share**3 * (10 + share * (6 * share - 15))
    return (start + progress * (goal - start)).astype(np.float32)
