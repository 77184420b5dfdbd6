"""What a device with sticks, knobs or keys says at one moment."""

from dataclasses import dataclass, field

AXIS_NAMES = ("x", "y", "z", "roll", "pitch", "yaw")
DEADBAND = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Deflections in [-1, 1] by axis name (x away from the person, y left, z up; turns right-handed about them).

    Example:
        Axes(values={"x": 0.4, "yaw": -1.0}, grip=1.0, buttons=frozenset({0}))
    """

    values: dict[str, float] = field(default_factory=dict)
    grip: float | None = None
    """Wanted opening of the gripper: 0 closed, 1 open; None where nobody has said it since the takeover."""
    buttons: frozenset[int] = frozenset()
    """Numbers of the buttons that are pressed."""
    is_lost: bool = False
    """Whether the device is gone: unplugged, or its terminal was closed."""

    @property
    def is_active(self) -> bool:
        """Whether the person moves something."""
        return any(abs(value) > DEADBAND for value in self.values.values())
