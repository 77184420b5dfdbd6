"""The fake robot of the jitter benchmark: obedient joints, three network cameras, a clock of its own."""

import numpy as np

from robot_infra.cameras.frames import CameraReader
from robot_infra.cameras.mjpeg import MjpegSource
from robot_infra.clock import TickClock
from robot_infra.interfaces import Transition
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Observation, Outcome

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
WIDTH, HEIGHT = 298, 224
NUM_JOINTS = 14
FIRST_PICTURE_S = 20.0


class BenchRobot:
    """Satisfies `robot_infra.interfaces.RobotEnv`; one episode is the whole measurement."""

    keeps_time = True

    def __init__(self, hz: float, num_steps: int, port: int) -> None:
        """Connects to the cameras at a port of this machine and waits for their first pictures."""
        names = tuple(f"j{i}" for i in range(NUM_JOINTS))
        self.spec = RobotSpec(
            name="bench", cameras=tuple(CameraSpec(name=name, height=HEIGHT, width=WIDTH) for name in CAMERAS),
            state_names=names, action_names=names, action_low=(-3.0,) * NUM_JOINTS, action_high=(3.0,) * NUM_JOINTS,
            control_hz=hz, max_speed=(2.0,), max_acceleration=(20.0,), max_jerk=(400.0,),
        )  # fmt: skip
        self.clock, self._num_steps = TickClock(1 / hz), num_steps
        self.cameras = [
            CameraReader(name, MjpegSource(f"http://127.0.0.1:{port}/{name}"), max_age_s=5.0, frozen_after_s=0.0)
            for name in CAMERAS
        ]
        for camera in self.cameras:
            camera.wait(FIRST_PICTURE_S)

    def reset(self, *, seed: int) -> Observation:
        """Begins."""
        del seed
        self._joints, self._step = np.zeros(NUM_JOINTS, np.float32), 0
        self.clock.start()
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        """Waits for the end of the tick, then looks."""
        self.clock.wait()
        self._joints, self._step = action, self._step + 1
        return Transition(
            observation=self._observe(), reward=0.0, terminated=False, truncated=self._step >= self._num_steps,
            success=False, executed_action=action,
        )  # fmt: skip

    def render(self) -> np.ndarray:
        """Returns the first camera."""
        return self.cameras[0].newest()

    def close(self) -> None:
        """Ends the cameras."""
        for camera in self.cameras:
            camera.close()

    def _observe(self) -> Observation:
        return Observation(
            images={camera.name: camera.newest() for camera in self.cameras}, state=self._joints, prompt="go"
        )


class Waver:
    """A person who moves all joints all the time; satisfies `robot_infra.interfaces.Operator`."""

    def __init__(self) -> None:
        self._tick = 0

    def reset(self) -> None:
        """Begins."""
        self._tick = 0

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray:
        """Returns the next point of a wave."""
        del observation, proposal
        self._tick += 1
        return np.full(NUM_JOINTS, np.sin(0.05 * self._tick), np.float32)

    def judge(self, transition: Transition) -> Outcome:
        """Returns failure; nobody cares."""
        del transition
        return Outcome.FAILURE
