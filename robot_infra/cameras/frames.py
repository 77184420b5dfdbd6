"""The newest picture of a camera, with its age; a silent or frozen camera is found out."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from robot_infra.cameras.frozen import FrozenWatch
from serl_launcher.errors import RobotError

logger = logging.getLogger(__name__)

RETRY_S = 0.5


class PictureSource(Protocol):
    """Where pictures come from."""

    def pictures(self) -> Iterator[np.ndarray]:
        """Yields uint8 (height, width, 3) RGB as they come; raises RobotError or OSError when cut off."""
        ...

    def close(self) -> None:
        """Ends the iteration soon."""
        ...


class CameraReader:
    """Reads one camera in a thread, for ever."""

    def __init__(self, name: str, source: PictureSource, *, max_age_s: float, frozen_after_s: float) -> None:
        """Begins to read.

        Args:
            name: How messages call it.
            source: Where pictures come from.
            max_age_s: Older pictures are not given out.
            frozen_after_s: A camera that shows the very same picture for so long is frozen; 0: not looked at.
        """
        self.name, self._source = name, source
        self._max_age_s, self._frozen = max_age_s, FrozenWatch(name, frozen_after_s=frozen_after_s)
        self._newest: np.ndarray | None = None
        self._received_s = -math.inf
        self._complaint = ""
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)
        self._thread.start()

    def newest(self) -> np.ndarray:
        """Returns the newest picture; raises RobotError where it is too old or frozen."""
        now = time.monotonic()
        picture, age_s = self._newest, now - self._received_s
        if picture is None or age_s > self._max_age_s:
            raise RobotError(
                f"Camera {self.name!r}: expected a picture not older than {self._max_age_s:g} s, the newest is "
                f"{'missing' if picture is None else f'{age_s:.2f} s old'}. {self._complaint}".rstrip()
            )
        self._frozen.require_alive()
        return picture

    def wait(self, timeout_s: float) -> np.ndarray:
        """Returns the first picture, waiting for it; raises RobotError when none comes in time."""
        with self._news:
            self._news.wait_for(lambda: self._newest is not None, timeout_s)
        return self.newest()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._source.close()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for picture in self._source.pictures():
                    self._take(picture)
                    if self._stop.is_set():
                        return
            except (OSError, RobotError, ValueError) as exc:
                self._complaint = f"The last error was: {exc}"
            self._stop.wait(RETRY_S)

    def _take(self, picture: np.ndarray) -> None:
        self._frozen.note(picture)
        with self._news:
            self._newest, self._received_s = picture, time.monotonic()
            self._news.notify_all()
