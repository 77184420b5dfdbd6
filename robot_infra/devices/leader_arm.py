"""A leader arm: a small arm with the joints of the robot's, which a person moves by hand."""

import threading
import time

import numpy as np

from robot_infra.devices.dynamixel import DynamixelBus
from robot_infra.devices.options import LeaderConfig
from serl_launcher.errors import RobotError

READ_HZ = 50.0


class LeaderArm:
    """Seven positions [7]: six joints in radians, and the opening of the handle in [0, 1]."""

    def __init__(self, name: str, config: LeaderConfig) -> None:
        """Opens the line and begins to read; raises RobotError where a servo does not answer."""
        self._name, self._config = name, config
        self._bus = DynamixelBus(config.port, config.servos, baud=config.baud, timeout_s=config.timeout_s)
        self._newest = self._first_positions()
        self._read_s = time.monotonic()
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"leader-{name}", daemon=True)
        self._thread.start()

    def positions(self) -> np.ndarray:
        """Returns where the person holds it, float64 [7]; raises RobotError where it has been silent."""
        age_s = time.monotonic() - self._read_s
        if age_s > self._config.max_age_s:
            raise RobotError(f"The {self._name} leader arm has been silent for {age_s:.1f} s. {self._complaint}")
        return self._newest

    def close(self) -> None:
        """Lets go of it."""
        self._stop.set()
        self._thread.join(timeout=2.0)
        self._bus.close()

    def _positions(self) -> np.ndarray:
        config = self._config
        angles = np.asarray(config.signs) * (np.asarray(self._bus.angles()) - np.asarray(config.offsets))
        opening = (angles[6] - config.gripper_closed) / (config.gripper_opened - config.gripper_closed)
        return np.append(angles[:6], np.clip(opening, 0.0, 1.0))

    def _first_positions(self) -> np.ndarray:
        try:
            return self._positions()
        except RobotError:
            return self._positions()  # A line may miss one answer.

    def _run(self) -> None:
        while not self._stop.wait(1 / READ_HZ):
            try:
                self._newest = self._positions()
                self._read_s = time.monotonic()
            except RobotError as exc:
                self._complaint = str(exc)
