"""Fixed-size records from a device file of the kernel, read in a thread; a pipe will do in its place."""

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable

from serl_launcher.errors import RobotError

logger = logging.getLogger(__name__)


class EventFile:
    """Calls `handle` with what comes, until the device is gone."""

    def __init__(self, path: str, *, what: str, handle: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """Opens the device.

        Args:
            path: Device file.
            what: How messages call it.
            handle: Takes each report, in a thread of its own.
            lost: Called once when the device is unplugged.

        Raises:
            RobotError: There is no such device, or it is not ours to read.
        """
        self.path, self._what, self._handle, self._lost = path, what, handle, lost
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as exc:
            raise RobotError(
                f"Expected a {what} at {path}: {exc.strerror}. Plug it in; where permission is missing, add yourself "
                "to the group `input` (or write a udev rule). Without it, take over by keyboard or leader arm."
            ) from exc
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops reading; may be called twice."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(timeout=2.0)
            os.close(self._descriptor)

    def _run(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            if not ready:
                continue
            report = b""
            with contextlib.suppress(BlockingIOError, OSError):
                report = os.read(self._descriptor, 4096)
            if not report:
                logger.warning("The %s at %s is gone; the person is not in control any more.", self._what, self.path)
                self._lost()
                return
            self._handle(report)
