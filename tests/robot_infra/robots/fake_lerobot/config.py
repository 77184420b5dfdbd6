"""Settings of the fake devices, in a module of their own, as LeRobot expects of plug-ins."""

from dataclasses import dataclass

from lerobot.robots import RobotConfig
from lerobot.teleoperators import TeleoperatorConfig


@RobotConfig.register_subclass("fake_arm")
@dataclass(kw_only=True)
class FakeArmConfig(RobotConfig):
    port: str
    fails_after: int = 10**9
    measures_nan: bool = False


@TeleoperatorConfig.register_subclass("fake_leader")
@dataclass(kw_only=True)
class FakeLeaderConfig(TeleoperatorConfig):
    value: float = 30.0
    is_silent: bool = False
