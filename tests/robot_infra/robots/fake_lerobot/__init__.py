"""A robot and a leader arm that LeRobot finds as plug-ins: two motors and a camera, without metal."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.robots import Robot
from lerobot.teleoperators import Teleoperator

from tests.robot_infra.robots.fake_lerobot.config import FakeArmConfig, FakeLeaderConfig

ACTIONS = {"shoulder.pos": float, "gripper.pos": float}


@dataclass
class Trouble:
    """What is going wrong at the moment."""

    measures_nan: bool = False
    delay_s: float = 0.0
    is_frozen: bool = False
    is_blocked: bool = False
    is_without_power: bool = False


class FakeArm(Robot):
    config_class = FakeArmConfig
    name = "fake_arm"

    def __init__(self, config: FakeArmConfig) -> None:
        super().__init__(config)
        self.config = config
        self.positions = {"shoulder.pos": 10.0, "gripper.pos": 50.0}
        self.num_sent = self.num_pictures = 0
        self.sent: list[dict[str, float]] = []
        self.trouble = Trouble()
        self._is_connected = False

    observation_features = ACTIONS | {"front": (12, 16, 3)}
    action_features = ACTIONS
    is_calibrated = True

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    def connect(self, calibrate: bool = True) -> None:
        if self.config.measures_nan:
            self.trouble.measures_nan = True
        if self.config.port == "none":
            raise ConnectionError("no such port")
        self._is_connected = True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        time.sleep(self.trouble.delay_s)
        self.num_pictures += not self.trouble.is_frozen
        positions = dict.fromkeys(ACTIONS, math.nan) if self.trouble.measures_nan else self.positions
        return positions | {"front": np.full((12, 16, 3), self.num_pictures % 256, np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.num_sent += 1
        if self.num_sent > self.config.fails_after:
            raise ConnectionError("the bus is silent")
        if self.trouble.is_without_power:
            raise ConnectionError("no motor answers: is the emergency stop pressed?")
        self.sent.append(dict(action))
        if not self.trouble.is_blocked:
            self.positions = dict(action)
        return action

    def disconnect(self) -> None:
        self._is_connected = False


class FakeLeader(Teleoperator):
    config_class = FakeLeaderConfig
    name = "fake_leader"
    action_features = ACTIONS
    feedback_features: dict[str, type] = {}  # noqa: RUF012 - LeRobot's own convention
    is_connected = True
    is_calibrated = True

    def __init__(self, config: FakeLeaderConfig) -> None:
        super().__init__(config)
        self.config = config

    def connect(self, calibrate: bool = True) -> None: ...

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_action(self) -> dict[str, float]:
        if self.config.is_silent:
            raise ConnectionError("the leader's bus is silent")
        return dict.fromkeys(ACTIONS, self.config.value)

    def send_feedback(self, feedback: dict[str, float]) -> None: ...

    def disconnect(self) -> None: ...
