"""Servos on a Feetech bus (SMS/STS series): the grippers of the X-Trainer. Half-duplex serial line, 1 Mbaud.

Frame: FF FF, id, length, instruction, parameters, checksum (inverted sum of id to the last parameter).
"""

import struct
import threading
import time

from robot_infra.devices.serial_line import SerialLine
from serl_launcher.errors import RobotError

HEADER = b"\xff\xff"
READ, WRITE = 2, 3
GOAL, PRESENT = 41, 56
"""Register of the goal (acceleration u8, position i16, time u16, speed u16), and of the present position (u16)."""
BAUD = 1_000_000
TIMEOUT_S = 0.05
FIRST_TRIES = 10
MIN_LENGTH = 2
"""Error byte and checksum."""


def frame(servo: int, instruction: int, parameters: bytes) -> bytes:
    """Returns one frame to a servo, or (with an error byte as instruction) one answer from it."""
    body = bytes([servo, len(parameters) + 2, instruction]) + parameters
    return HEADER + body + bytes([~sum(body) & 0xFF])


def unframe(line: SerialLine, *, timeout_s: float) -> tuple[int, int, bytes]:
    """Returns servo, error byte and parameters of the next answer; raises RobotError on silence or a wrong checksum."""
    line.skip_to(HEADER, timeout_s=timeout_s)
    servo, length = line.read(2, timeout_s=timeout_s)
    if length < MIN_LENGTH:
        raise RobotError(
            f"Expected a frame of {MIN_LENGTH} bytes or more from servo {servo} on {line.path}, got {length}."
        )
    rest = line.read(length, timeout_s=timeout_s)
    if ~(servo + length + sum(rest[:-1])) & 0xFF != rest[-1]:
        raise RobotError(
            f"Expected a frame with a correct checksum from servo {servo} on {line.path}, got a damaged one."
        )
    return servo, rest[0], rest[1:-1]


class FeetechGripper:
    """One gripper driven by one servo; opening 0 is closed, 1 is open."""

    def __init__(
        self, path: str, *, servo: int, closed: int, opened: int, speed: int = 4096, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Opens the line.

        Args:
            path: Serial device, e.g. `/dev/ttyUSB0`.
            servo: Id on the bus.
            closed: Servo position, in steps (4096 per turn), where the gripper is closed.
            opened: Likewise open.
            speed: Steps per second at most.
            timeout_s: Deadline of one answer.

        Raises:
            RobotError: There is no such device, or the servo does not answer.
        """
        self._line = SerialLine(path, baud=BAUD)
        self._servo, self._closed, self._opened, self._speed = servo, closed, opened, speed
        self._lock, self._timeout_s = threading.Lock(), timeout_s
        for tries_left in reversed(range(FIRST_TRIES)):
            try:
                self.first_opening = self.opening()
            except RobotError:
                if not tries_left:
                    raise
            else:
                break

    def opening(self) -> float:
        """Returns the measured opening; raises RobotError where the servo does not answer."""
        with self._lock:
            self._line.forget()
            self._line.write(frame(self._servo, READ, bytes([PRESENT, 2])))
            parameters = self._answer(num_bytes=2)
        (position,) = struct.unpack("<H", parameters)
        return (position - self._closed) / (self._opened - self._closed)

    def command(self, opening: float) -> None:
        """Commands an opening in [0, 1]; raises RobotError where the servo does not confirm."""
        position = round(self._closed + min(max(opening, 0.0), 1.0) * (self._opened - self._closed))
        goal = struct.pack("<BBHHH", GOAL, 0, position, 0, self._speed)
        with self._lock:
            self._line.forget()
            self._line.write(frame(self._servo, WRITE, goal))
            self._answer(num_bytes=0)

    def close(self) -> None:
        """Closes the line; the gripper stays where it is."""
        self._line.close()

    def _answer(self, *, num_bytes: int) -> bytes:
        """Returns the parameters of the answer; late answers to earlier questions, of another size, are dropped."""
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            left_s = max(deadline_s - time.monotonic(), 0.0)
            servo, error, parameters = unframe(self._line, timeout_s=left_s)
            if servo != self._servo or error:
                raise RobotError(
                    f"Expected servo {self._servo} on {self._line.path} to confirm, got {servo}, error {error}."
                )
            if len(parameters) == num_bytes:
                return parameters
