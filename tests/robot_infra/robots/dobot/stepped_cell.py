"""The driver and two emulated controllers in one thread and in time of its own: as fast as it goes.

The driver, its gate, its servo stream, the protocol's text and packets, and the controllers are the real ones. Left out
are the sockets, the threads and the clock: `SteppedTime` takes the place of the module `time` in the driver, and to
sleep is to let the arms move, one servo period at a time.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.world import home_joints
from robot_infra.robots.dobot.arm import DobotArm
from robot_infra.robots.dobot.dashboard import Dashboard
from robot_infra.robots.dobot.emulator.controller import ArmPhysics, EmulatedController
from robot_infra.robots.dobot.feedback import Feedback, FeedbackReader
from robot_infra.robots.dobot.robot import SIDES, DobotXTrainer
from robot_infra.safety import Gate
from serl_launcher.config.environment import EnvironmentConfig

HZ, SERVO_HZ = 10.0, 30.0
SERVO_S = 1 / SERVO_HZ
LOOK_S = 1e-6
"""To look at the clock takes so long."""
MAX_SPEED, MAX_ACCELERATION, MAX_JERK = 2.0, 8.0, 160.0
DRIVER = "robot_infra.robots.dobot"
MARGIN_RAD = 0.3
"""The driver's own limits are so much inside of the controllers'."""
LOW, HIGH = kinematics.JOINT_LOW + MARGIN_RAD, kinematics.JOINT_HIGH - MARGIN_RAD


@dataclass
class SteppedTime:
    """Stands for the module `time`."""

    controllers: dict[int, EmulatedController] = field(default_factory=dict)
    """By the port of their commands."""
    readers: dict[int, "SteppedReader"] = field(default_factory=dict)
    """By the port of their packets."""
    arms: list[DobotArm] = field(default_factory=list)
    now_s: float = 1000.0
    num_points: int = 0
    commands: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """What each arm was commanded since it last stood, tick by tick, after three times where it stood."""

    def monotonic(self) -> float:
        self.now_s += LOOK_S
        return self.now_s

    def sleep(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            step_s = min(end_s - self.now_s, SERVO_S)
            self.now_s += step_s
            for arm in self.arms:
                arm.send_point(SERVO_S)
            for controller in self.controllers.values():
                self.advance(controller, step_s)

    def stand(self, positions: np.ndarray) -> None:
        for side, here in zip(SIDES, positions.reshape(2, 7), strict=True):
            self.commands[side] = [here] * 3

    def command(self, side: str, target: np.ndarray) -> None:
        path = [*self.commands[side], target]
        self.commands[side] = path[-4:]
        for order, limit in ((1, MAX_SPEED / HZ), (2, MAX_ACCELERATION / HZ**2), (3, MAX_JERK / HZ**3)):
            changes = np.diff(np.stack(path[-4:]).astype(np.float64), order, axis=0)
            assert np.abs(changes).max() <= limit + 1e-5, f"The limit on change {order} is kept, also by the grippers."

    def advance(self, controller: EmulatedController, step_s: float) -> None:
        before = controller.physics.joints
        controller.physics.advance(step_s)
        check_limits(controller.physics, before, step_s)
        self.num_points += 1
        if not controller.trouble.drop_feedback:
            self.readers[controller.feedback_port].feed(controller.packet())


def check_limits(physics: ArmPhysics, before: np.ndarray, step_s: float) -> None:
    for positions in (physics.joints, physics.target):
        assert (positions >= LOW - 1e-5).all()
        assert (positions <= HIGH + 1e-5).all()
    assert np.abs(physics.joints - before).max() <= MAX_SPEED * step_s * 1.05
    assert physics.num_bad_points == 0, "The controller never had to stop the arm by itself."


class SteppedReader(FeedbackReader):
    """Reads packets where they are fed."""

    def __init__(self, stepped: SteppedTime, port: int) -> None:
        self._stepped, self._port, self._buffer = stepped, port, bytearray()
        stepped.readers[port] = self
        super().__init__("stepped", port)

    def feed(self, packet: bytes) -> None:
        self._buffer += packet
        while len(self._buffer) >= 1440:
            self._take(self._buffer)

    def wait(self, timeout_s: float) -> Feedback:
        self._stepped.sleep(SERVO_S)
        return super().wait(timeout_s)

    def _run(self) -> None:
        pass


class SteppedDashboard(Dashboard):
    """Asks the controller in this thread."""

    def __init__(self, stepped: SteppedTime, port: int) -> None:
        self._controller = stepped.controllers[port]
        super().__init__("stepped", port)

    def _connect(self) -> None:
        pass

    def _exchange(self, command: str, deadline_s: float) -> str:
        if self._controller.trouble.drop_commands:
            raise TimeoutError("timed out")
        return self._controller.answer(command)


@contextmanager
def stepped_robot(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DobotXTrainer, SteppedTime]]:
    """Yields a connected robot without cameras and grippers, and its time."""
    stepped = SteppedTime()
    with ExitStack() as stack:
        for number in range(len(SIDES)):
            joints = np.clip(home_joints(number), LOW, HIGH)
            physics = ArmPhysics(joints=joints, low=kinematics.JOINT_LOW, high=kinematics.JOINT_HIGH)
            controller = EmulatedController(physics, feedback_hz=0)
            stepped.controllers[controller.dashboard_port] = controller
            stack.callback(controller.close)
        for module in ("robot_infra.clock", f"{DRIVER}.robot", f"{DRIVER}.arm", f"{DRIVER}.feedback"):
            monkeypatch.setattr(f"{module}.time", stepped)
        monkeypatch.setattr("robot_infra.clock.EARLY_S", 0.0)
        monkeypatch.setattr(f"{DRIVER}.arm.FeedbackReader", lambda host, port: SteppedReader(stepped, port))
        monkeypatch.setattr(f"{DRIVER}.arm.Dashboard", lambda host, port, **_: SteppedDashboard(stepped, port))
        monkeypatch.setattr(DobotArm, "_stream", lambda arm: None)
        for controller in stepped.controllers.values():
            SteppedReader(stepped, controller.feedback_port).close()
        watch_commands(monkeypatch, stepped)
        robot = DobotXTrainer(config_of(stepped))
        stack.callback(robot.close)
        stepped.arms = list(robot.arms.values())
        yield robot, stepped


def watch_commands(monkeypatch: pytest.MonkeyPatch, stepped: SteppedTime) -> None:
    """Checks every command of both arms against those before it, from where the driver says that they stand."""
    begin, command = Gate.begin, DobotArm.command

    def begin_watched(gate: Gate, standing: np.ndarray | None) -> None:
        assert standing is not None
        stepped.stand(standing)
        begin(gate, standing)

    def command_watched(arm: DobotArm, target: np.ndarray) -> None:
        command(arm, target)
        stepped.command(arm.name, target)

    monkeypatch.setattr(Gate, "begin", begin_watched)
    monkeypatch.setattr(DobotArm, "command", command_watched)


def config_of(stepped: SteppedTime) -> EnvironmentConfig:
    controllers = list(stepped.controllers.values())
    arms = {
        side: {
            "host": "stepped", "dashboard_port": each.dashboard_port, "feedback_port": each.feedback_port,
            "servo_hz": SERVO_HZ, "silent_after_s": 0.1,
        }
        for side, each in zip(SIDES, controllers, strict=True)
    }  # fmt: skip
    options = {
        **arms, "cameras": {}, "wait_for_after_done_time": 0.0, "wait_for_after_reset_time": 0.0,
        "reset_pose": np.concatenate([np.append(each.physics.joints, 1.0) for each in controllers]).tolist(),
        "pose_limits": {"low": [*LOW.tolist(), 0.0] * 2, "high": [*HIGH.tolist(), 1.0] * 2},
    }  # fmt: skip
    return EnvironmentConfig(
        name="dobot_pnp", hz=HZ, image_keys=[], max_episode_length=10**9, options=options, prompts=["move"],
        max_speed=[MAX_SPEED], max_acceleration=[MAX_ACCELERATION], max_jerk=[MAX_JERK],
    )  # fmt: skip
