"""A robot whose every observation shows a number that no other observation shows."""

from collections.abc import Iterator

import numpy as np

from robot_infra.interfaces import Transition
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Observation, Outcome

JOINTS = ("j0", "j1", "number")
EPISODE_STEPS = 40

SPEC = RobotSpec(
    name="numbered",
    cameras=(
        CameraSpec(name="front", height=48, width=48, encoding="jpeg"),
        CameraSpec(name="wrist", height=48, width=48, encoding="png"),
    ),
    state_names=JOINTS,
    action_names=("j0", "j1"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    control_hz=50.0,
)


class NumberedRobot:
    """Counts its observations on from where the last process stopped; both pictures are noise drawn from the number."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self.spec = SPEC
        self._numbers = numbers
        self._tick = 0

    def reset(self, *, seed: int) -> Observation:
        del seed
        self._tick = 0
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        self._tick += 1
        observation = self._observe()
        return Transition(
            observation=observation,
            reward=float(observation.state[2] % 7),
            terminated=self._tick == EPISODE_STEPS,
            truncated=False,
            success=False,
            executed_action=action,
        )

    def render(self) -> np.ndarray:
        return np.zeros((16, 16, 3), np.uint8)

    def close(self) -> None:
        pass

    def _observe(self) -> Observation:
        number = next(self._numbers)
        draw = np.random.default_rng(number)
        images = {camera.name: draw.integers(0, 256, camera.shape, np.uint8) for camera in SPEC.cameras}
        state = np.array([*draw.uniform(-1, 1, 2), number], np.float32)
        return Observation(images=images, state=state, prompt=f"task {number % 3}")


class Person:
    """Drives at every tick; judges by the last number."""

    def reset(self) -> None:
        pass

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray:
        del proposal
        return observation.state[:2]

    def judge(self, transition: Transition) -> Outcome:
        return (Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNLABELLED)[int(transition.observation.state[2]) % 3]
