"""A hand without an arm: its state is a pose, its actions are small motions in the frame of the base."""

from dataclasses import dataclass, field

import numpy as np

from robot_infra.interfaces import Transition
from robot_infra.wrappers.rotations import euler_to_matrix, matrix_to_euler
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Observation

POSE = ["x", "y", "z", "roll", "pitch", "yaw"]
MOTION = ["dx", "dy", "dz"]
SPEC = RobotSpec(
    name="pose",
    cameras=(CameraSpec(name="cam", height=8, width=8),),
    state_names=(*POSE, "qx", "qy", "qz", "qw"),
    action_names=(*MOTION, "gripper"),
    action_low=(-1.0, -1.0, -1.0, 0.0),
    action_high=(1.0, 1.0, 1.0, 1.0),
    control_hz=10.0,
)


@dataclass
class PoseRobot:
    start: np.ndarray = field(default_factory=lambda: np.array([1.0, 2.0, 3.0, 0.1, -0.2, 0.7]))
    turn: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 0.1]))
    """Turn about the base's axes at every step."""
    spec: RobotSpec = SPEC

    def reset(self, *, seed: int) -> Observation:
        self.pose = self.start.copy()
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        self.pose[:3] += action[:3]
        self.pose[3:] = matrix_to_euler(euler_to_matrix(self.turn) @ euler_to_matrix(self.pose[3:]))
        return Transition(
            observation=self._observe(), reward=1.0, terminated=False, truncated=False, success=False,
            executed_action=np.asarray(action, np.float32),
        )  # fmt: skip

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        pass

    def _observe(self) -> Observation:
        half = self.pose[5] / 2
        state = np.concatenate([self.pose, [0.0, 0.0, np.sin(half), np.cos(half)]])
        picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
        return Observation(images={"cam": picture}, state=state.astype(np.float32), prompt="go")
