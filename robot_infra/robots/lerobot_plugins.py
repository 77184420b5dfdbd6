"""Makes robots, teleoperators and cameras of LeRobot from plain settings. Needs LeRobot (extra `learner`) only then.

`module` names the package whose import registers the type, e.g. `lerobot.robots.so_follower`; the cameras of a robot
may have one each, e.g. `lerobot.cameras.opencv`.
"""

import importlib
import importlib.util
from typing import Any

from serl_launcher.errors import ConfigError, RobotError


def require_lerobot(what: str) -> None:
    """Raises ConfigError where LeRobot is not installed."""
    if importlib.util.find_spec("lerobot") is None:
        raise ConfigError(f"{what} of LeRobot needs the package lerobot, which is not installed: pip install lerobot.")


def make_robot(settings: dict[str, Any]) -> Any:  # Any: LeRobot's own class, which must not be imported here.
    """Returns the robot, connected; `settings` are those of LeRobot's config class with `type` and `module`."""
    require_lerobot("A robot")
    from lerobot.robots import RobotConfig, make_robot_from_config

    return _connected(_made(make_robot_from_config, _decoded(RobotConfig, settings, "robot")), settings)


def make_teleoperator(settings: dict[str, Any]) -> Any:  # Any: as above.
    """Returns the teleoperator, connected."""
    require_lerobot("A teleoperator")
    from lerobot.teleoperators import TeleoperatorConfig, make_teleoperator_from_config

    config = _decoded(TeleoperatorConfig, settings, "teleoperator")
    return _connected(_made(make_teleoperator_from_config, config), settings)


def make_camera(settings: dict[str, Any]) -> Any:  # Any: as above.
    """Returns the camera, connected."""
    require_lerobot("A camera")
    from lerobot.cameras import CameraConfig, make_cameras_from_configs

    [camera] = make_cameras_from_configs({"camera": _decoded(CameraConfig, settings, "camera")}).values()
    return _connected(camera, settings)


def _decoded(base: Any, settings: dict[str, Any], what: str) -> Any:  # Any: LeRobot's config classes.
    from draccus.parsers.decoding import decode

    chosen = _registered(settings, what)
    try:
        return decode(base, chosen)
    except Exception as exc:  # draccus raises its own and any error of the config classes.
        known = sorted(base.get_known_choices())
        raise ConfigError(f"LeRobot {what} {chosen.get('type')!r}: {exc}. Known types: {known}.") from exc


def _registered(settings: dict[str, Any], what: str) -> dict[str, Any]:
    """Returns the settings without their modules, which are imported, at every depth."""
    module = settings.get("module", "")
    try:
        if module:
            importlib.import_module(module)
    except ImportError as exc:
        raise ConfigError(f"The LeRobot {what} needs {module}: {exc}.") from exc
    return {
        key: _registered(value, f"{what}'s {key}") if isinstance(value, dict) else value
        for key, value in settings.items()
        if key != "module"
    }


def _made(make: Any, config: Any) -> Any:  # Any: LeRobot's functions and classes.
    try:
        return make(config)
    except (ValueError, ImportError) as exc:
        raise ConfigError(f"LeRobot cannot make {config!r}: {exc}") from exc


def _connected(device: Any, settings: dict[str, Any]) -> Any:  # Any: as above.
    try:
        device.connect()
    except Exception as exc:  # Every driver has its own errors; all mean that it cannot be reached.
        raise RobotError(f"Expected the LeRobot device {settings.get('type')!r} to connect: {exc}") from exc
    return device
