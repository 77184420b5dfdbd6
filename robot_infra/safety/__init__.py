"""What a safe command is. Pure functions of arrays: they know no robot, no clock and no switch that turns them off."""

from robot_infra.safety.limits import (
    SafetyLimits,
    admit,
    limits_of,
    require_finite,
    standing_still,
    within_bounds,
    within_reach,
)

__all__ = ["SafetyLimits", "admit", "limits_of", "require_finite", "standing_still", "within_bounds", "within_reach"]
