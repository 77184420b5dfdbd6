"""A gamepad by the kernel's joystick interface (`/dev/input/js0`): no library, no display.

Report: time u32 in ms, value i16, type u8 (1 button, 2 axis; 128 is set for the state at the start), number u8.
"""

import struct

from robot_infra.devices.axes import Axes
from robot_infra.devices.event_file import EventFile

REPORT = struct.Struct("<IhBB")
BUTTON, AXIS, INITIAL = 1, 2, 0x80
FULL_DEFLECTION = 32767
AXIS_OF_STICK = {0: ("y", -1.0), 1: ("x", -1.0), 3: ("yaw", -1.0), 4: ("z", -1.0), 6: ("roll", 1.0), 7: ("pitch", 1.0)}
"""Left stick x and y, right stick yaw and z, cross roll and pitch; sticks count right and down as positive."""
CLOSE_BUTTON, OPEN_BUTTON = 0, 1


class Gamepad:
    """Axes of the sticks; button 0 closes the gripper, button 1 opens it."""

    def __init__(self, path: str = "/dev/input/js0") -> None:
        """Opens it; raises RobotError where there is none."""
        self._values: dict[str, float] = {}
        self._buttons: frozenset[int] = frozenset()
        self._grip: float | None = None
        self._is_lost = False
        self._rest = b""
        self._file = EventFile(path, what="gamepad", handle=self._take, lost=self._forget)

    def begin(self, *, is_open: bool) -> None:
        """The person takes over: what the gripper was told before counts no more."""
        self._grip = None

    def read(self) -> Axes:
        """Returns how the sticks stand."""
        return Axes(values=dict(self._values), grip=self._grip, buttons=self._buttons, is_lost=self._is_lost)

    def close(self) -> None:
        """Lets go of it."""
        self._file.close()

    def _take(self, received: bytes) -> None:
        received = self._rest + received
        whole = len(received) - len(received) % REPORT.size
        self._rest = received[whole:]
        for _, value, kind, number in REPORT.iter_unpack(received[:whole]):
            if kind & ~INITIAL == AXIS and number in AXIS_OF_STICK:
                axis, sign = AXIS_OF_STICK[number]
                self._values[axis] = sign * max(value / FULL_DEFLECTION, -1.0)
            elif kind & ~INITIAL == BUTTON:
                self._buttons = self._buttons | {number} if value else self._buttons - {number}
                if value and not kind & INITIAL and number in (CLOSE_BUTTON, OPEN_BUTTON):
                    self._grip = float(number == OPEN_BUTTON)

    def _forget(self) -> None:
        self._values, self._buttons, self._is_lost = {}, frozenset(), True
