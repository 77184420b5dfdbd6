"""Settings of a robot of LeRobot, below `environment.options`; checked when the robot is built."""

from typing import Any

import msgspec

from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError


class LeRobotOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Everything below `environment.options` of `environment.name=lerobot`."""

    robot: dict[str, Any]
    """LeRobot's own settings: `type`, `port`, `cameras`, ...; `module` where the type is not built in."""
    teleoperator: dict[str, Any] = {}
    """Likewise the leader arm, for `actor.devices.hand=leader`."""
    bounds: dict[str, list[float]] = {}
    """Lowest and highest value per action; others have LeRobot's range, -100 to 100, grippers 0 to 100."""
    reset_pose: dict[str, float] = {}
    """Value per action at a reset; empty: the robot stays where it is."""
    wait_for_after_reset_time: float = 2.0
    max_tracking_error: float = 40.0
    """A motor further than this from its command is a fault; grippers may hold something and are not looked at."""
    frozen_after_s: float = 2.0
    """The same picture for so long is a fault; 0: not looked at (a picture without noise)."""


def read_options(config: EnvironmentConfig) -> LeRobotOptions:
    """Returns the checked settings; raises ConfigError that names the wrong one."""
    try:
        return msgspec.convert(config.options, LeRobotOptions)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"environment.options of lerobot: {exc}.") from exc
