"""A serial line as bytes with deadlines; a pseudo-terminal will do, which is how emulators come in."""

import contextlib
import errno
import os
import select
import termios
import time
import tty

from serl_launcher.errors import RobotError

SPEEDS = {
    9600: termios.B9600, 57600: termios.B57600, 115200: termios.B115200, 1_000_000: termios.B1000000,
    2_000_000: termios.B2000000, 3_000_000: termios.B3000000,
}  # fmt: skip


class SerialLine:
    """An open line in raw mode."""

    def __init__(self, path: str, *, baud: int) -> None:
        """Opens the device.

        Raises:
            RobotError: There is none, it is somebody else's, or the speed is unknown.
        """
        if baud not in SPEEDS:
            raise RobotError(f"Expected one of the speeds {sorted(SPEEDS)} for {path}, got {baud}.")
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as exc:
            raise RobotError(
                f"Expected a serial device at {path}: {exc.strerror}. Plug it in; where permission is missing, add "
                "yourself to the group `dialout`."
            ) from exc
        with contextlib.suppress(termios.error):
            tty.setraw(self._descriptor)
            attributes = termios.tcgetattr(self._descriptor)
            attributes[4] = attributes[5] = SPEEDS[baud]
            termios.tcsetattr(self._descriptor, termios.TCSANOW, attributes)

    def write(self, message: bytes) -> None:
        """Sends bytes; raises RobotError where the device is gone."""
        try:
            os.write(self._descriptor, message)
        except OSError as exc:
            raise RobotError(f"{self.path} is gone: {exc.strerror}.") from exc

    def read(self, num_bytes: int, *, timeout_s: float) -> bytes:
        """Returns exactly so many bytes; raises RobotError where they do not come in time."""
        deadline_s, received = time.monotonic() + timeout_s, b""
        while len(received) < num_bytes:
            ready, _, _ = select.select([self._descriptor], [], [], max(deadline_s - time.monotonic(), 0.0))
            if not ready:
                raise RobotError(
                    f"Expected {num_bytes} bytes from {self.path} within {1e3 * timeout_s:.0f} ms, got {len(received)}."
                )
            received += self._take(num_bytes - len(received))
        return received

    def skip_to(self, mark: bytes, *, timeout_s: float) -> None:
        """Drops bytes up to and with the next mark; raises RobotError where none comes in time."""
        deadline_s, seen = time.monotonic() + timeout_s, b""
        while not seen.endswith(mark):
            seen = (seen + self.read(1, timeout_s=max(deadline_s - time.monotonic(), 0.0)))[-len(mark) :]

    def forget(self) -> None:
        """Drops what came in so far."""
        with contextlib.suppress(termios.error):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    def close(self) -> None:
        """Closes the device."""
        os.close(self._descriptor)

    def _take(self, num_bytes: int) -> bytes:
        try:
            received = os.read(self._descriptor, num_bytes)
        except OSError as exc:
            if exc.errno == errno.EAGAIN:
                return b""
            raise RobotError(f"{self.path} is gone: {exc.strerror}.") from exc
        if not received:
            raise RobotError(f"{self.path} is gone: it was closed at the other end.")
        return received
