"""Any camera of LeRobot (OpenCV, RealSense, ...) by its config."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from robot_infra.robots.lerobot_plugins import make_camera, require_lerobot
from serl_launcher.errors import RobotError


class LeRobotSource:
    """Satisfies `robot_infra.cameras.frames.PictureSource`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Takes LeRobot's settings, e.g. `{type: opencv, module: lerobot.cameras.opencv, index_or_path: 0, ...}`.

        Raises:
            ConfigError: LeRobot is not installed.
        """
        require_lerobot("A camera")
        self._settings = settings
        self._is_closed = False

    def pictures(self) -> Iterator[np.ndarray]:
        """Yields uint8 (height, width, 3) RGB; raises RobotError when the camera is gone."""
        camera = make_camera(self._settings)
        try:
            while not self._is_closed:
                yield np.asarray(camera.async_read(), np.uint8)
        except Exception as exc:  # Every driver has its own errors.
            raise RobotError(f"The camera {self._settings.get('type')!r} is gone: {exc}") from exc
        finally:
            camera.disconnect()

    def close(self) -> None:
        """Ends the iteration with the next picture."""
        self._is_closed = True
