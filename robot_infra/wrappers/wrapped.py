"""What all wrappers share: they pass on what they do not change."""

from typing import Any

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class Wrapped:
    """A robot around a robot; satisfies `robot_infra.interfaces.RobotEnv`."""

    def __init__(self, env: RobotEnv) -> None:
        self.env = env

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like."""
        return self.env.spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode."""
        return self.env.reset(seed=seed)

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [A] for one tick."""
        return self.env.step(action)

    def render(self) -> np.ndarray:
        """Returns a picture of the scene."""
        return self.env.render()

    def close(self) -> None:
        """Frees the robot."""
        self.env.close()

    def look(self) -> Observation | None:
        """Returns what can be seen meanwhile; None where this wrapper needs to see every tick in order."""
        return None

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the robot has, e.g. `keeps_time`.
        return getattr(self.env, name)


def indices(names: tuple[str, ...], wanted: list[str], what: str) -> list[int]:
    """Returns where the wanted names are; raises ConfigError that lists the known ones."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(f"{what}: {missing} are unknown, there are {list(names)}.")
    return [names.index(name) for name in wanted]
