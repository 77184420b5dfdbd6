"""Replaces a quaternion in the state by Euler angles or by six numbers that never jump."""

from dataclasses import replace

import msgspec
import numpy as np

from robot_infra.interfaces import RobotEnv, Transition, look
from robot_infra.wrappers.rotations import matrix_to_euler, matrix_to_six, quaternion_to_matrix
from robot_infra.wrappers.wrapped import Wrapped, indices
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation

FORMS = {
    "euler": (("roll", "pitch", "yaw"), matrix_to_euler),
    "six": (tuple(f"r{i}" for i in range(6)), matrix_to_six),
}


class RotationState(Wrapped):
    """The four dimensions of the quaternion give way to three or six, in the same place."""

    def __init__(self, env: RobotEnv, *, quaternion: list[str], form: str = "euler", prefix: str = "") -> None:
        """Takes the state names of x, y, z, w, next to each other in this order, and `euler` or `six`.

        Raises:
            ConfigError: A name or the form is unknown, or the four are not neighbours.
        """
        super().__init__(env)
        if form not in FORMS:
            raise ConfigError(f"rotation_state: form must be one of {sorted(FORMS)}, got {form!r}.")
        found = indices(env.spec.state_names, quaternion, "rotation_state")
        if len(found) != 4 or found != list(range(found[0], found[0] + 4)):
            raise ConfigError(f"rotation_state: expected four neighbours x, y, z, w, got {quaternion}.")
        names, self._convert = FORMS[form]
        self._first = found[0]
        state_names = env.spec.state_names
        added = tuple(f"{prefix}{name}" for name in names)
        self._spec = msgspec.structs.replace(
            env.spec, state_names=(*state_names[: self._first], *added, *state_names[self._first + 4 :])
        )

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like now."""
        return self._spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode."""
        return self._converted(self.env.reset(seed=seed))

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot."""
        transition = self.env.step(action)
        return replace(transition, observation=self._converted(transition.observation))

    def look(self) -> Observation | None:
        """Returns what can be seen meanwhile."""
        seen = look(self.env)
        return None if seen is None else self._converted(seen)

    def _converted(self, observation: Observation) -> Observation:
        state, first = observation.state, self._first
        rotation = self._convert(quaternion_to_matrix(state[first : first + 4]))
        return replace(
            observation, state=np.concatenate([state[:first], rotation, state[first + 4 :]]).astype(np.float32)
        )
