"""What a safe command is: functions of arrays that know no robot and no clock, and the gate that applies them."""

from robot_infra.safety.faults import Fault, FaultKind, FaultLatch
from robot_infra.safety.gate import Gate
from robot_infra.safety.limits import (
    WATCHDOG_S,
    SafetyLimits,
    acts_by_position,
    admit,
    limits_of,
    require_continuous,
    require_finite,
    standing_still,
    within_bounds,
    within_reach,
)
from robot_infra.safety.motion import Motion, braking_motion, next_motion
from robot_infra.safety.resets import reset_trajectory
from robot_infra.safety.watchdog import is_silent
from robot_infra.safety.workspace import Workspace

__all__ = [
    "WATCHDOG_S",
    "Fault",
    "FaultKind",
    "FaultLatch",
    "Gate",
    "Motion",
    "SafetyLimits",
    "Workspace",
    "acts_by_position",
    "admit",
    "braking_motion",
    "is_silent",
    "limits_of",
    "next_motion",
    "require_continuous",
    "require_finite",
    "reset_trajectory",
    "standing_still",
    "within_bounds",
    "within_reach",
]
