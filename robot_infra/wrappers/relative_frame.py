"""Positions relative to where the hand was at the reset, and actions in the hand's own frame (HIL-SERL)."""

from dataclasses import replace

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition
from robot_infra.wrappers.rotations import euler_to_matrix, matrix_to_euler
from robot_infra.wrappers.wrapped import Wrapped, indices
from serl_launcher.errors import ConfigError
from serl_launcher.types import Observation


class RelativeFrame(Wrapped):
    """A policy that never sees where the scene stands: it works as well when robot or table is moved.

    The pose in the state becomes that in the frame of the hand at the reset. Translations and turns in the action are
    meant in the frame of the hand as it is now; what is executed, and recorded, is turned back likewise.
    """

    def __init__(self, env: RobotEnv, *, pose: list[str], motion: list[str]) -> None:
        """Takes the state names of x, y, z, roll, pitch, yaw, and the action names of dx, dy, dz (and the three turns).

        Raises:
            ConfigError: A name is unknown, or there are not six and three or six.
        """
        super().__init__(env)
        if len(pose) != 6 or len(motion) not in (3, 6):
            raise ConfigError(
                f"relative_frame needs 6 names for the pose and 3 or 6 for the motion, got {pose}, {motion}."
            )
        self._pose = indices(env.spec.state_names, pose, "relative_frame")
        self._motion = indices(env.spec.action_names, motion, "relative_frame")
        self._start = np.eye(3), np.zeros(3)
        self._now = np.eye(3)

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode; its first pose is the origin."""
        observation = self.env.reset(seed=seed)
        pose = observation.state[self._pose].astype(np.float64)
        self._start = euler_to_matrix(pose[3:]), pose[:3]
        return self._relative(observation)

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [A], with its motion in the frame of the hand."""
        hand_to_base = self._now
        transition = self.env.step(self._turned(action, hand_to_base))
        executed = self._turned(transition.executed_action, hand_to_base.T)
        return replace(transition, observation=self._relative(transition.observation), executed_action=executed)

    def _turned(self, action: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        turned = np.array(action, np.float32)
        for first in range(0, len(self._motion), 3):
            part = self._motion[first : first + 3]
            turned[part] = rotation @ action[part]
        return turned

    def _relative(self, observation: Observation) -> Observation:
        pose = observation.state[self._pose].astype(np.float64)
        start_to_base, origin = self._start
        self._now = euler_to_matrix(pose[3:])
        state = observation.state.copy()
        state[self._pose[:3]] = start_to_base.T @ (pose[:3] - origin)
        state[self._pose[3:]] = matrix_to_euler(start_to_base.T @ self._now)
        return replace(observation, state=state)
