"""How whatever drives a robot leaves it: at rest."""

import contextlib
from collections.abc import Callable

from robot_infra.interfaces import RobotEnv
from robot_infra.safety import Gate
from serl_launcher.errors import RobotError, SafetyError


def brake(env: RobotEnv, gate: Gate, *, after_tick: Callable[[], None] = lambda: None) -> None:
    """Brings a moving robot to rest within its limits, tick by tick; it stays there. Nothing of it is recorded."""
    # A robot with a fault of its own has stopped already, one that cannot be reached stops by itself.
    with contextlib.suppress(SafetyError, RobotError):
        while gate.is_moving and (command := gate.hold()) is not None:
            env.step(command)
            after_tick()
