"""Settings of the things a person holds."""

import msgspec


class LeaderConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A leader arm with seven Dynamixel servos on one line."""

    port: str
    servos: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    signs: tuple[float, ...] = (1.0,) * 7
    """Direction of each servo."""
    offsets: tuple[float, ...] = (0.0,) * 7
    """Angle of each servo, in radians, where the arm's joint is 0."""
    gripper_closed: float = 0.0
    """Servo angle of the handle, in radians, where the gripper is to be closed."""
    gripper_opened: float = 1.0
    baud: int = 57600
    timeout_s: float = 0.05
    """Deadline of one answer."""
    max_age_s: float = 0.3
    """The person is not followed when the arm has been silent for so long."""
