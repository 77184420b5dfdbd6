"""A 3Dconnexion SpaceMouse by its raw HID reports (`/dev/hidraw0`): no library, no display.

Report 1: translation, three i16 (newer devices append the rotation); report 2: rotation; report 3: buttons as bits.
Deflections reach about 350.
"""

import struct

from robot_infra.devices.axes import Axes
from robot_infra.devices.event_file import EventFile

FULL_DEFLECTION = 350.0
TRANSLATION, ROTATION, BUTTONS = 1, 2, 3
NUM_BUTTONS = 32
CLOSE_BUTTON, OPEN_BUTTON = 0, 1


class SpaceMouse:
    """Six axes of the cap; button 0 closes the gripper, button 1 opens it."""

    def __init__(self, path: str = "/dev/hidraw0") -> None:
        """Opens it; raises RobotError where there is none."""
        self._values: dict[str, float] = {}
        self._buttons: frozenset[int] = frozenset()
        self._grip: float | None = None
        self._is_lost = False
        self._file = EventFile(path, what="SpaceMouse", handle=self._take, lost=self._forget)

    def begin(self, *, is_open: bool) -> None:
        """The person takes over: what the gripper was told before counts no more."""
        self._grip = None

    def read(self) -> Axes:
        """Returns how the cap is held."""
        return Axes(values=dict(self._values), grip=self._grip, buttons=self._buttons, is_lost=self._is_lost)

    def close(self) -> None:
        """Lets go of it."""
        self._file.close()

    def _take(self, report: bytes) -> None:
        kind = report[0]
        if kind == TRANSLATION and len(report) >= 7:
            # The device counts right, towards the person and down as positive.
            right, towards, down = struct.unpack_from("<3h", report, 1)
            self._set(x=-towards, y=-right, z=-down)
            if len(report) >= 13:
                self._turn(struct.unpack_from("<3h", report, 7))
        elif kind == ROTATION and len(report) >= 7:
            self._turn(struct.unpack_from("<3h", report, 1))
        elif kind == BUTTONS and len(report) >= 2:
            self._press(int.from_bytes(report[1:5], "little"))

    def _turn(self, turns: tuple[int, ...]) -> None:
        pitch, roll, yaw = turns
        self._set(roll=-roll, pitch=-pitch, yaw=-yaw)

    def _set(self, **deflections: int) -> None:
        for axis, deflection in deflections.items():
            self._values[axis] = max(-1.0, min(1.0, deflection / FULL_DEFLECTION))

    def _press(self, bits: int) -> None:
        pressed = frozenset(number for number in range(NUM_BUTTONS) if bits >> number & 1)
        for number in pressed - self._buttons:
            if number in (CLOSE_BUTTON, OPEN_BUTTON):
                self._grip = float(number == OPEN_BUTTON)
        self._buttons = pressed

    def _forget(self) -> None:
        self._values, self._buttons, self._is_lost = {}, frozenset(), True
