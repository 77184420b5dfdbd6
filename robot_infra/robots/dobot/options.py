"""Settings of the Dobot X-Trainer, below `environment.options`; checked when the robot is built."""

import msgspec

from robot_infra.cameras.options import CameraConfig
from robot_infra.devices.options import LeaderConfig
from serl_launcher.errors import ConfigError


class GripperConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A Feetech servo that drives a gripper."""

    port: str
    """Serial device."""
    servo: int = 1
    closed: int = 2048
    """Servo position in steps where the gripper is closed."""
    opened: int = 3998
    timeout_s: float = 0.05
    """Deadline of one answer."""
    silent_after_s: float = 0.5
    """No answer for so long is a fault."""


class ArmConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One arm."""

    host: str
    dashboard_port: int = 29999
    feedback_port: int = 30004
    servo_hz: float = 33.0
    """Rate of ServoJ; the controller wants a point at least every 30 ms."""
    timeout_s: float = 0.5
    """Deadline of one command."""
    silent_after_s: float = 0.1
    """Feedback older than this is a fault; packets come every 8 ms."""
    gripper: GripperConfig | None = None


class DobotOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Everything below `environment.options` of `dobot_pnp`."""

    left: ArmConfig
    right: ArmConfig
    cameras: dict[str, CameraConfig]
    """By the names in `environment.image_keys`."""
    reset_pose: list[float]
    """Left arm's six joints and gripper, right arm's six joints and gripper; radians, opening."""
    pose_limits: dict[str, list[float]]
    """`low` and `high`, 14 values each."""
    random_reset: bool = False
    random_joint_range: float = 0.01
    """Most that the first three joints of each arm are moved at random at a reset, in radians."""
    wait_for_after_done_time: float = 1.0
    """Seconds between the end of an episode and the reset."""
    wait_for_after_reset_time: float = 2.0
    """Seconds between the reset and the next episode, in which the person prepares the scene."""
    max_tracking_error: float = 0.5
    """An arm further than this from its command, in radians, is a fault."""
    leaders: dict[str, LeaderConfig] = {}
    """`left` and `right` leader arm, for takeovers and demonstrations."""


def read_options(options: dict) -> DobotOptions:
    """Returns the checked settings; raises ConfigError that names the wrong one."""
    try:
        checked = msgspec.convert(options, DobotOptions)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"environment.options of dobot_pnp: {exc}.") from exc
    sizes = {
        "reset_pose": checked.reset_pose,
        **{f"pose_limits.{side}": checked.pose_limits.get(side, []) for side in ("low", "high")},
    }
    for what, values in sizes.items():
        if len(values) != 14:
            raise ConfigError(f"environment.options.{what} of dobot_pnp needs 14 values, got {len(values)}.")
    return checked
