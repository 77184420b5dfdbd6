"""Keys from a terminal: the one this process was started in, or any other by its path. Needs no X and no root."""

import contextlib
import logging
import os
import select
import termios
import threading
import time
import tty
from collections.abc import Callable

from robot_infra.devices.axes import Axes
from serl_launcher.errors import RobotError

logger = logging.getLogger(__name__)

OWN_TERMINAL = "/dev/tty"
HELD_S = 0.2
"""A terminal says nothing about released keys; a repeated key counts as held for so long."""
AXIS_KEYS = {
    "i": ("x", 1.0), "k": ("x", -1.0), "j": ("y", 1.0), "l": ("y", -1.0), "u": ("z", 1.0), "o": ("z", -1.0),
    "7": ("roll", 1.0), "9": ("roll", -1.0), "8": ("pitch", 1.0), "0": ("pitch", -1.0),
    "n": ("yaw", 1.0), "m": ("yaw", -1.0),
}  # fmt: skip


class Keyboard:
    """Tells listeners every key; also is a device with axes, by `AXIS_KEYS`; `g` opens and closes the gripper."""

    def __init__(self, path: str = OWN_TERMINAL) -> None:
        """Begins to read keys one by one, unechoed.

        Raises:
            RobotError: There is no such terminal, e.g. because the process was started without one.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY)
            self._before = termios.tcgetattr(self._descriptor)
        except (OSError, termios.error) as exc:
            raise RobotError(
                f"Expected a terminal at {path} for keys: {exc}. Start the actor in a terminal (e.g. in tmux), or set "
                "actor.devices.keyboard='' and label and take over by another device."
            ) from exc
        tty.setcbreak(self._descriptor, termios.TCSANOW)
        self._listeners: list[Callable[[str], None]] = []
        self._pressed: dict[str, float] = {}
        self._grip: float | None = None
        self._was_open = True
        self._is_lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keyboard", daemon=True)
        self._thread.start()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Calls the listener with every key from now on, in the keyboard's thread."""
        self._listeners.append(listener)

    def begin(self, *, is_open: bool) -> None:
        """The person takes over; `g` opens or closes the gripper from how it stands."""
        self._grip, self._was_open = None, is_open

    def read(self) -> Axes:
        """Returns the axes of the keys that are held now."""
        now = time.monotonic()
        values: dict[str, float] = {}
        for key, pressed_s in list(self._pressed.items()):
            if key in AXIS_KEYS and now - pressed_s < HELD_S:
                axis, value = AXIS_KEYS[key]
                values[axis] = values.get(axis, 0.0) + value
        return Axes(values=values, grip=self._grip, is_lost=self._is_lost)

    def close(self) -> None:
        """Gives the terminal back as it was."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(timeout=2.0)
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)
        os.close(self._descriptor)

    def _run(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            if not ready:
                continue
            received = b""
            with contextlib.suppress(OSError):
                received = os.read(self._descriptor, 64)
            if not received:
                self._is_lost = True
                logger.warning("The terminal %s is gone: no keys any more.", self.path)
                return
            for key in received.decode(errors="ignore"):
                self._pressed[key] = time.monotonic()
                if key == "g":
                    self._grip = 1.0 - (float(self._was_open) if self._grip is None else self._grip)
                for listener in self._listeners:
                    listener(key)
