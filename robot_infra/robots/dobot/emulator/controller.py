"""One emulated controller: answers on the command port, sends feedback, moves like a servo-driven arm, and can fail."""

import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from robot_infra.robots.dobot.feedback import RobotMode, build

COMMAND = re.compile(r"(\w+)\(([^()]*)\)")
UNKNOWN, FAILED = -10000, -1
SERVO_GAIN_HZ = 25.0
MAX_SPEED_RAD_S = 3.14
"""A Nova 2 joint turns at most about 180 degrees per second."""


@dataclass(slots=True)
class Trouble:
    """What is going wrong at the moment; all may be changed while the emulator runs."""

    drop_feedback: bool = False
    delay_answers_s: float = 0.0
    garbage_feedback: bool = False
    nan_feedback: bool = False
    drop_commands: bool = False


@dataclass(kw_only=True, slots=True)
class ArmPhysics:
    """Joints that follow their target with a first-order lag and a speed limit.

    Positions are float64 [6] in radians. A target outside of the joint limits raises an alarm, as the real one does.
    """

    joints: np.ndarray
    low: np.ndarray
    high: np.ndarray
    target: np.ndarray = field(init=False)
    is_enabled: bool = False
    has_error: bool = False
    is_stopped: bool = False
    """Whether the emergency stop is pressed."""
    is_blocked: bool = False
    """Whether something stands in the way of the joints."""
    num_points: int = 0
    """ServoJ points that were executed."""
    num_bad_points: int = 0
    """ServoJ points outside of the joint limits, each of which raised an alarm."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.target = self.joints.copy()

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        with self.lock:
            if not self.is_enabled or self.has_error:
                self.target = self.joints.copy()
                return
            if self.is_blocked:
                return
            share = 1 - np.exp(-SERVO_GAIN_HZ * seconds)
            change = np.clip(share * (self.target - self.joints), -MAX_SPEED_RAD_S * seconds, MAX_SPEED_RAD_S * seconds)
            self.joints = self.joints + change

    def servo(self, target: np.ndarray) -> bool:
        """Takes the next point; False, and perhaps an alarm, where it cannot."""
        with self.lock:
            if not self.is_enabled or self.has_error:
                return False
            if not np.isfinite(target).all() or (target < self.low - 1e-6).any() or (target > self.high + 1e-6).any():
                self.has_error, self.num_bad_points = True, self.num_bad_points + 1
                return False
            self.target, self.num_points = target, self.num_points + 1
            return True

    @property
    def mode(self) -> RobotMode:
        """What the controller would say."""
        if self.has_error:
            return RobotMode.ERROR
        if not self.is_enabled:
            return RobotMode.DISABLED
        return RobotMode.RUNNING if np.abs(self.target - self.joints).max() > 1e-3 else RobotMode.ENABLED


class EmulatedController:
    """Serves one arm on two ports of this machine."""

    def __init__(self, physics: ArmPhysics, *, feedback_hz: float = 125.0) -> None:
        """Listens on free ports, and begins to answer.

        Args:
            physics: The arm.
            feedback_hz: Rate of the packets; 0: none are sent, and time passes where somebody lets the arm advance.
        """
        self.physics, self.trouble = physics, Trouble()
        self._period_s = 1 / feedback_hz if feedback_hz else None
        self._stop = threading.Event()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self._readers: list[socket.socket] = []
        self._connections: list[socket.socket] = []
        threads = {"dashboard": self._accept_commands, "feedback": self._accept_readers}
        if feedback_hz:
            threads["time"] = self._run
        for name, run in threads.items():
            threading.Thread(target=run, name=f"emulator-{name}", daemon=True).start()

    @property
    def dashboard_port(self) -> int:
        """Where commands are taken."""
        return self._listeners[0].getsockname()[1]

    @property
    def feedback_port(self) -> int:
        """Where packets are sent."""
        return self._listeners[1].getsockname()[1]

    def press_emergency_stop(self) -> None:
        """A person hits the button."""
        self.physics.is_stopped = True
        self.physics.has_error, self.physics.is_enabled = True, False

    def release_emergency_stop(self) -> None:
        """A person turns the button back; the alarm stays until it is cleared."""
        self.physics.is_stopped = False

    def close(self) -> None:
        """Ends everything."""
        self._stop.set()
        for each in (*self._listeners, *self._readers, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def answer(self, command: str) -> str:
        """Returns the answer to one command of the documented protocol."""
        match = COMMAND.fullmatch(command.strip())
        if match is None:
            return f"{UNKNOWN},{{}},{command.strip()};"
        name, arguments = match[1], match[2]
        error, values = self._execute(name, [text for text in arguments.split(",") if text])
        return f"{error},{{{values}}},{name}({arguments});"

    def _execute(self, name: str, arguments: list[str]) -> tuple[int, str]:
        physics = self.physics
        if name == "ServoJ":
            angles = [float(text) for text in arguments[:6]]
            return (0 if len(angles) == 6 and physics.servo(np.deg2rad(angles)) else FAILED), ""
        if name == "RobotMode":
            return 0, str(int(physics.mode))
        if name == "GetAngle":
            return 0, ",".join(f"{angle:.6f}" for angle in np.rad2deg(physics.joints))
        if name == "EnableRobot":
            if physics.has_error:
                return FAILED, ""
            physics.is_enabled = True
            return 0, ""
        if name == "DisableRobot":
            physics.is_enabled = False
            return 0, ""
        if name == "ClearError":
            physics.has_error = physics.is_stopped
            return (FAILED if physics.is_stopped else 0), ""
        if name == "EmergencyStop":
            self.press_emergency_stop() if arguments[:1] == ["1"] else self.release_emergency_stop()
            return 0, ""
        return UNKNOWN, ""

    def _accept_commands(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listeners[0].accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        buffer = ""
        with contextlib.suppress(OSError, ValueError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while received := connection.recv(4096):
                buffer += received.decode(errors="replace")
                while ")" in buffer:
                    command, _, buffer = buffer.partition(")")
                    if self.trouble.drop_commands:
                        continue
                    self._stop.wait(self.trouble.delay_answers_s)
                    connection.sendall(self.answer(f"{command})").encode())

    def _accept_readers(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                reader, _ = self._listeners[1].accept()
                reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._readers.append(reader)

    def _run(self) -> None:
        """Lets the arm move and tells the readers."""
        last_s = time.monotonic()
        while not self._stop.wait(self._period_s):
            now = time.monotonic()
            self.physics.advance(now - last_s)
            last_s = now
            if not self.trouble.drop_feedback:
                self._send(self.packet())

    def packet(self) -> bytes:
        """Returns what the feedback port would send now."""
        physics, trouble = self.physics, self.trouble
        if trouble.garbage_feedback:
            return np.random.default_rng(int(1e3 * time.monotonic())).bytes(997)
        joints = np.full(6, np.nan) if trouble.nan_feedback else physics.joints
        return build(
            joints, physics.target, mode=physics.mode, is_enabled=physics.is_enabled, has_error=physics.has_error
        )

    def _send(self, packet: bytes) -> None:
        for reader in list(self._readers):
            try:
                reader.sendall(packet)
            except OSError:
                self._readers.remove(reader)
                reader.close()
