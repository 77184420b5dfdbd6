"""Wraps a robot as `environment.wrappers` says, the first entry innermost."""

from collections.abc import Mapping, Sequence
from typing import Any

from robot_infra.interfaces import RobotEnv
from robot_infra.wrappers.crop import Crop
from robot_infra.wrappers.gripper_penalty import GripperPenalty
from robot_infra.wrappers.history import History
from robot_infra.wrappers.relative_frame import RelativeFrame
from robot_infra.wrappers.rotation_state import RotationState
from robot_infra.wrappers.segments import Segments
from robot_infra.wrappers.wrapped import Wrapped
from serl_launcher.errors import ConfigError

WRAPPERS: dict[str, type[Wrapped]] = {
    "crop": Crop,
    "gripper_penalty": GripperPenalty,
    "history": History,
    "relative_frame": RelativeFrame,
    "rotation_state": RotationState,
    "segments": Segments,
}


def wrap(env: RobotEnv, wrappers: Sequence[Mapping[str, Any]]) -> RobotEnv:
    """Returns the wrapped robot; each entry has a `name` and the wrapper's arguments.

    Raises:
        ConfigError: A name is unknown, or the arguments do not fit.
    """
    for entry in wrappers:
        arguments = {str(key): value for key, value in entry.items()}
        name = arguments.pop("name", None)
        if name not in WRAPPERS:
            raise ConfigError(f"environment.wrappers: expected a name among {sorted(WRAPPERS)}, got {name!r}.")
        try:
            env = WRAPPERS[name](env, **arguments)
        except TypeError as exc:
            raise ConfigError(f"environment.wrappers: {name} does not take {arguments}: {exc}.") from exc
    return env
