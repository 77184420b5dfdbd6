"""Reads the servos of a leader arm: Dynamixel protocol 2.0, present position (register 132, 4 bytes, 4096 per turn).

Packet: FF FF FD 00, id, length, instruction, parameters, CRC-16 (polynomial 8005, begins with 0).
"""

import math
import struct
from collections.abc import Sequence

from robot_infra.devices.serial_line import SerialLine
from serl_launcher.errors import RobotError

HEADER = b"\xff\xff\xfd\x00"
SYNC_READ, STATUS, BROADCAST = 0x82, 0x55, 0xFE
PRESENT_POSITION, POSITION_BYTES = 132, 4
STEPS_PER_TURN = 4096
TIMEOUT_S = 0.05


def crc(message: bytes) -> int:
    """Returns the CRC-16 of a packet without its last two bytes."""
    register = 0
    for byte in message:
        register ^= byte << 8
        for _ in range(8):
            register = ((register << 1) ^ 0x8005 if register & 0x8000 else register << 1) & 0xFFFF
    return register


def packet(servo: int, instruction: int, parameters: bytes) -> bytes:
    """Returns a packet; a header inside the parameters is stuffed as the protocol says."""
    stuffed = parameters.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    message = HEADER + struct.pack("<BHB", servo, len(stuffed) + 3, instruction) + stuffed
    return message + struct.pack("<H", crc(message))


def angle_to_steps(angle: float) -> int:
    """Returns the servo position of an angle in radians; 0 rad is half a turn."""
    return round(STEPS_PER_TURN / 2 + angle / math.tau * STEPS_PER_TURN)


def steps_to_angle(steps: int) -> float:
    """Returns the angle in radians of a servo position."""
    return (steps - STEPS_PER_TURN / 2) / STEPS_PER_TURN * math.tau


class DynamixelBus:
    """Reads all servos of a line at once."""

    def __init__(self, path: str, servos: Sequence[int], *, baud: int, timeout_s: float = TIMEOUT_S) -> None:
        """Opens the line; raises RobotError where there is no such device."""
        self._line = SerialLine(path, baud=baud)
        self._servos, self._timeout_s = list(servos), timeout_s
        parameters = struct.pack("<HH", PRESENT_POSITION, POSITION_BYTES) + bytes(self._servos)
        self._question = packet(BROADCAST, SYNC_READ, parameters)

    def angles(self) -> list[float]:
        """Returns the angles in radians, in the order of the servos; raises RobotError where one does not answer."""
        self._line.forget()
        self._line.write(self._question)
        found = dict(self._answer() for _ in self._servos)
        missing = [servo for servo in self._servos if servo not in found]
        if missing:
            raise RobotError(f"Expected servos {self._servos} on {self._line.path}; {missing} did not answer.")
        return [found[servo] for servo in self._servos]

    def close(self) -> None:
        """Closes the line."""
        self._line.close()

    def _answer(self) -> tuple[int, float]:
        self._line.skip_to(HEADER, timeout_s=self._timeout_s)
        head = self._line.read(3, timeout_s=self._timeout_s)
        servo, length = struct.unpack("<BH", head)
        if not 4 <= length <= 64:
            raise RobotError(
                f"Expected an answer of 4 to 64 bytes from servo {servo} on {self._line.path}, got {length}."
            )
        body = self._line.read(length, timeout_s=self._timeout_s)
        if crc(HEADER + head + body[:-2]) != struct.unpack("<H", body[-2:])[0] or body[0] != STATUS:
            raise RobotError(
                f"Expected an undamaged answer from servo {servo} on {self._line.path}, got a damaged one."
            )
        parameters = body[2:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
        if body[1] & 0x7F or len(parameters) != POSITION_BYTES:
            raise RobotError(f"Servo {servo} on {self._line.path} reports error {body[1]}.")
        return servo, steps_to_angle(struct.unpack("<i", parameters)[0])
