"""Finds out a camera that goes on delivering, but always the very same picture."""

import math
import time
import zlib

import numpy as np

from serl_launcher.errors import RobotError


class FrozenWatch:
    """Remembers when the pictures of one camera last changed."""

    def __init__(self, name: str, *, frozen_after_s: float) -> None:
        """Takes how messages call the camera, and after how long it is frozen; 0: not looked at."""
        self._name, self._frozen_after_s = name, frozen_after_s
        self._changed_s = -math.inf
        self._checksum: int | None = None

    def note(self, picture: np.ndarray) -> None:
        """Looks at the newest picture."""
        checksum = zlib.adler32(np.ascontiguousarray(picture).data)
        if checksum != self._checksum:
            self._changed_s, self._checksum = time.monotonic(), checksum

    def require_alive(self) -> None:
        """Raises RobotError where the pictures have been the very same for too long."""
        same_s = time.monotonic() - self._changed_s
        if self._frozen_after_s and same_s > self._frozen_after_s:
            raise RobotError(
                f"Camera {self._name!r} has shown the same picture for {same_s:.1f} s: it is frozen. "
                "Unplug it and plug it in again."
            )
