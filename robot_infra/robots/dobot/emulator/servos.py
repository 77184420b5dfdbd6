"""Emulated servos: the gripper's on a Feetech bus, the leader arm's on a Dynamixel bus."""

import struct

import numpy as np

from robot_infra.devices import dynamixel, feetech
from robot_infra.robots.dobot.emulator.line import EmulatedLine

MAX_FRAME_BYTES = 32


class EmulatedGripper:
    """A Feetech servo that is where it was told to be, or where somebody put it."""

    def __init__(self, *, servo: int = 1, closed: int = 2048, opened: int = 3998) -> None:
        """Plugs the servo in; it is open."""
        self._servo, self._closed, self._opened = servo, closed, opened
        self.goal = self.measured = 1.0
        """Openings in [0, 1]; whoever emulates the world sets `measured`."""
        self.line = EmulatedLine(self._respond)

    def _respond(self, received: bytes) -> tuple[bytes, int]:
        begin = received.find(feetech.HEADER)
        if begin >= 0 and len(received) >= begin + 4 and received[begin + 3] > MAX_FRAME_BYTES:
            return b"", begin + 1  # No beginning of a frame after all.
        if begin < 0 or len(received) < begin + 4 or len(received) < begin + 4 + received[begin + 3]:
            return b"", 0
        end = begin + 4 + received[begin + 3]
        servo, instruction, parameters = received[begin + 2], received[begin + 4], received[begin + 5 : end - 1]
        if servo != self._servo or feetech.frame(servo, instruction, parameters) != received[begin:end]:
            return b"", end
        span = self._opened - self._closed
        if instruction == feetech.WRITE and parameters[:1] == bytes([feetech.GOAL]):
            _, _, position, _, _ = struct.unpack("<BBHHH", parameters)
            self.goal = (position - self._closed) / span
            return feetech.frame(servo, 0, b""), end
        if instruction == feetech.READ:
            return feetech.frame(servo, 0, struct.pack("<H", round(self._closed + self.measured * span))), end
        return b"", end


class EmulatedLeader:
    """Seven Dynamixel servos that somebody moves by hand."""

    def __init__(self, servos: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)) -> None:
        """Plugs the arm in; all angles are 0."""
        self._servos = servos
        self.angles = np.zeros(len(servos))
        """Radians."""
        self.line = EmulatedLine(self._respond)

    def _respond(self, received: bytes) -> tuple[bytes, int]:
        begin = received.find(dynamixel.HEADER)
        if begin < 0 or len(received) < begin + 7:
            return b"", 0
        (length,) = struct.unpack_from("<H", received, begin + 5)
        end = begin + 7 + length
        if len(received) < end:
            return b"", 0
        packet = received[begin:end]
        if packet[7] != dynamixel.SYNC_READ or dynamixel.crc(packet[:-2]) != struct.unpack("<H", packet[-2:])[0]:
            return b"", end
        answers = [
            dynamixel.packet(servo, dynamixel.STATUS, b"\0" + struct.pack("<i", dynamixel.angle_to_steps(angle)))
            for servo, angle in zip(self._servos, self.angles.tolist(), strict=True)
            if servo in packet[12:-2]
        ]
        return b"".join(answers), end
