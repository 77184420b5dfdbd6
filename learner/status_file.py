"""Tells about once a second how a learner process is."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from learner.lifetime import Worker
from serl_launcher.status import JSON, write_status

_PERIOD_S = 1.0


class StatusFile:
    """Writes a status about once a second, whatever the process is doing."""

    def __init__(self, path: Path, values: Callable[[], dict[str, JSON]]) -> None:
        """Writes `values()`, with process id and time, to `path`; `values` is called in a thread of its own."""
        self._path = path
        self._values = values
        self._worker = Worker("status", self._work)

    def start(self) -> None:
        """Writes the first status and starts the thread."""
        self.write()
        self._worker.start()

    def stop(self) -> None:
        """Ends the thread after a last status."""
        self._worker.stop()
        self.write()

    def write(self) -> None:
        """Writes the status now."""
        write_status(self._path, {"pid": os.getpid(), "time": time.time(), **self._values()})

    def _work(self, stop: threading.Event) -> None:
        while not stop.wait(_PERIOD_S):
            self.write()
