"""The device's end of a serial line: a pseudo-terminal whose other end a driver opens like any serial device."""

import contextlib
import os
import select
import threading
import tty
from collections.abc import Callable


class EmulatedLine:
    """Feeds what a driver writes to `respond`, and what that returns back to the driver."""

    def __init__(self, respond: Callable[[bytes], tuple[bytes, int]]) -> None:
        """Opens the line; `respond` takes everything received and returns the answer and how many bytes it used."""
        self._respond = respond
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"emulator-line-{self.path}", daemon=True)
        self._thread.start()

    def write(self, message: bytes) -> None:
        """Says something unasked, as a keyboard does."""
        os.write(self._master, message)

    def close(self) -> None:
        """Unplugs the device."""
        self._stop.set()
        self._thread.join(timeout=2.0)
        for end in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(end)

    def _run(self) -> None:
        received = b""
        while not self._stop.is_set():
            ready, _, _ = select.select([self._master], [], [], 0.1)
            if not ready:
                continue
            with contextlib.suppress(OSError):
                received += os.read(self._master, 4096)
                answer, num_used = self._respond(received)
                received = received[num_used:]
                if answer:
                    os.write(self._master, answer)
