"""The emulated X-Trainer: two controllers, two grippers, three cameras, two leader arms and a person, on this machine.

The arms' measured joints move the table of `robot_infra.envs.sim_pnp`, which is what the cameras see.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.env import CAMERA_NAMES, SimPnp
from robot_infra.envs.sim_pnp.world import home_joints
from robot_infra.interfaces import Transition
from robot_infra.robots.dobot.emulator.cameras import EmulatedCameras
from robot_infra.robots.dobot.emulator.controller import ArmPhysics, EmulatedController
from robot_infra.robots.dobot.emulator.line import EmulatedLine
from robot_infra.robots.dobot.emulator.person import CellPerson, nothing_seen
from robot_infra.robots.dobot.emulator.servos import EmulatedGripper, EmulatedLeader

TICK_S = 0.1
PATIENCE_S = 60.0
"""Of the driver with this cell."""
NUM_ARMS = 2


def home_pose() -> np.ndarray:
    """Returns the cell's reset pose, [14]: left joints, left opening, right joints, right opening."""
    return np.concatenate([np.append(home_joints(arm), 1.0) for arm in range(NUM_ARMS)])


class EmulatedCell:
    """Runs until it is closed."""

    def __init__(
        self, *, image_size: tuple[int, int], demonstrates: bool = False, seed: int = 0, feedback_hz: float = 125.0
    ) -> None:
        """Plugs everything in.

        Args:
            image_size: Width and height of the cameras' pictures.
            demonstrates: Whether the person drives all the time.
            seed: Of the first scene.
            feedback_hz: Rate of the controllers' packets; the real ones send 125 per second.
        """
        self._sim = SimPnp(image_size=image_size, max_episode_length=10**9)
        self._openings = np.ones(NUM_ARMS)
        self.controllers = [
            EmulatedController(
                ArmPhysics(joints=home_joints(arm), low=kinematics.JOINT_LOW, high=kinematics.JOINT_HIGH),
                feedback_hz=feedback_hz,
            )
            for arm in range(NUM_ARMS)
        ]
        self.grippers = [EmulatedGripper() for _ in range(NUM_ARMS)]
        self.leaders = [EmulatedLeader() for _ in range(NUM_ARMS)]
        self.cameras = EmulatedCameras()
        self.terminal = EmulatedLine(lambda received: (b"", len(received)))
        self.person = CellPerson(
            self._sim, home_pose(), lambda key: self.terminal.write(key.encode()), demonstrates=demonstrates, seed=seed
        )
        self._hold_leaders(home_pose())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="emulator-cell", daemon=True)
        self._thread.start()

    def options(self) -> dict[str, Any]:  # Any: nested settings, as in YAML.
        """Returns `environment.options` by which the driver finds this cell."""
        low = np.tile([*kinematics.JOINT_LOW, 0.0], NUM_ARMS)
        high = np.tile([*kinematics.JOINT_HIGH, 1.0], NUM_ARMS)
        return {
            **{side: self._arm(arm) for arm, side in enumerate(("left", "right"))},
            "cameras": {
                name: {"kind": "mjpeg", "url": f"http://127.0.0.1:{self.cameras.port}/{name}", "max_age_s": PATIENCE_S}
                for name in CAMERA_NAMES
            },
            "leaders": {
                side: {"port": self.leaders[arm].line.path, "timeout_s": 1.0, "max_age_s": PATIENCE_S}
                for arm, side in enumerate(("left", "right"))
            },
            "reset_pose": home_pose().tolist(),
            "pose_limits": {"low": low.tolist(), "high": high.tolist()},
        }

    def close(self) -> None:
        """Unplugs everything."""
        self._stop.set()
        self._thread.join(timeout=5.0)
        close_all: list[Callable[[], None]] = [self.cameras.close, self.terminal.close]
        close_all += [controller.close for controller in self.controllers]
        close_all += [servos.line.close for servos in (*self.grippers, *self.leaders)]
        for close in close_all:
            close()

    def _arm(self, arm: int) -> dict[str, Any]:  # Any: as above.
        controller = self.controllers[arm]
        return {
            "host": "127.0.0.1",
            "dashboard_port": controller.dashboard_port,
            "feedback_port": controller.feedback_port,
            # A shared computer is no real-time controller.
            "silent_after_s": PATIENCE_S,
            "timeout_s": PATIENCE_S,
            "gripper": {"port": self.grippers[arm].line.path, "timeout_s": 1.0, "silent_after_s": PATIENCE_S},
        }

    def _run(self) -> None:
        """Lets the table follow the arms, ten times a second."""
        due_s = time.monotonic()
        while not self._stop.is_set():
            due_s = max(due_s + TICK_S, time.monotonic())
            goals = [gripper.goal for gripper in self.grippers]
            measured = np.concatenate(
                [np.append(each.physics.joints, goal) for each, goal in zip(self.controllers, goals, strict=True)]
            )
            seen, reward, terminated, _, found = self._sim.step(measured.astype(np.float32))
            for gripper, opening in zip(self.grippers, self._sim.world.openings, strict=True):
                gripper.measured = float(opening)
            self.cameras.show({name: seen[name] for name in CAMERA_NAMES})
            transition = Transition(
                observation=nothing_seen(seen), reward=reward, terminated=terminated, truncated=False,
                success=found["success"], executed_action=measured,
            )  # fmt: skip
            self._hold_leaders(self.person.tick(measured, transition))
            self._stop.wait(max(due_s - time.monotonic(), 0.0))

    def _hold_leaders(self, positions: np.ndarray) -> None:
        for leader, angles in zip(self.leaders, positions.reshape(NUM_ARMS, 7), strict=True):
            leader.angles = angles.astype(np.float64)
