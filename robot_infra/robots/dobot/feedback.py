"""The real-time feedback of a Dobot controller: a packet of 1440 bytes every 8 ms on port 30004, little-endian.

Layout from Dobot's TCP/IP remote control interface, version 4. Angles are degrees on the wire, radians here.
"""

import contextlib
import math
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from serl_launcher.errors import RobotError

PACKET_BYTES = 1440
MAGIC = 0x0123456789ABCDEF
MAGIC_OFFSET = 48
MODE_OFFSET = 24
TARGET_OFFSET = 192
JOINTS_OFFSET = 432
ENABLED_OFFSET, RUNNING_OFFSET, ERROR_OFFSET = 1026, 1028, 1029
SILENT_AFTER_S = 0.1
RECEIVE_TIMEOUT_S = 0.5


class RobotMode(IntEnum):
    """What the controller says that it does; alarms have precedence."""

    INIT = 1
    BRAKE_OPEN = 2
    POWER_OFF = 3
    DISABLED = 4
    ENABLED = 5
    DRAG = 6
    RUNNING = 7
    RECORDING = 8
    ERROR = 9
    PAUSED = 10
    COLLISION = 11


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """One packet.

    Example:
        Feedback(joints=np.zeros(6), target=np.zeros(6), mode=5, is_enabled=True, has_error=False, received_s=12.3)
    """

    joints: np.ndarray
    """Measured, float64 [6], radians."""
    target: np.ndarray
    """Commanded by the controller, float64 [6], radians."""
    mode: int
    is_enabled: bool
    has_error: bool
    received_s: float
    """Monotonic."""


def parse(packet: bytes | memoryview, *, received_s: float) -> Feedback:
    """Returns what a packet says; raises RobotError on anything that is none: another size, no magic, not finite."""
    if len(packet) != PACKET_BYTES:
        raise RobotError(f"Expected a feedback packet of {PACKET_BYTES} bytes, got {len(packet)}.")
    (size,) = struct.unpack_from("<H", packet, 0)
    (magic,) = struct.unpack_from("<Q", packet, MAGIC_OFFSET)
    if size != PACKET_BYTES or magic != MAGIC:
        raise RobotError(f"Expected a feedback packet with size {PACKET_BYTES} and test value {MAGIC:#x}, got garbage.")
    joints = np.frombuffer(packet, "<f8", 6, JOINTS_OFFSET)
    target = np.frombuffer(packet, "<f8", 6, TARGET_OFFSET)
    if not np.isfinite(joints).all() or not np.isfinite(target).all():
        raise RobotError(f"Expected finite joint angles, got {joints.tolist()} (target {target.tolist()}).")
    return Feedback(
        joints=np.deg2rad(joints),
        target=np.deg2rad(target),
        mode=struct.unpack_from("<Q", packet, MODE_OFFSET)[0],
        is_enabled=bool(packet[ENABLED_OFFSET]),
        has_error=bool(packet[ERROR_OFFSET]),
        received_s=received_s,
    )


def build(joints: np.ndarray, target: np.ndarray, *, mode: int, is_enabled: bool, has_error: bool) -> bytes:
    """Returns the packet of these values; the opposite of `parse`, for emulators."""
    packet = bytearray(PACKET_BYTES)
    struct.pack_into("<H", packet, 0, PACKET_BYTES)
    struct.pack_into("<Q", packet, MODE_OFFSET, mode)
    struct.pack_into("<Q", packet, MAGIC_OFFSET, MAGIC)
    struct.pack_into("<6d", packet, TARGET_OFFSET, *np.rad2deg(target))
    struct.pack_into("<6d", packet, JOINTS_OFFSET, *np.rad2deg(joints))
    packet[ENABLED_OFFSET], packet[ERROR_OFFSET] = int(is_enabled), int(has_error)
    packet[RUNNING_OFFSET] = int(mode == RobotMode.RUNNING)
    return bytes(packet)


class FeedbackReader:
    """Reads packets in a thread, for ever: finds the next packet after garbage, connects again when cut off."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._newest: Feedback | None = None
        self._has_news = threading.Condition()
        self._stop = threading.Event()
        self.num_bad = 0
        """Packets that were none."""
        self._thread = threading.Thread(target=self._run, name=f"dobot-feedback-{host}:{port}", daemon=True)
        self._thread.start()

    def newest(self, *, max_age_s: float = SILENT_AFTER_S) -> Feedback:
        """Returns the newest packet; raises RobotError where it is older than allowed, or none has come."""
        newest = self._newest
        age_s = math.inf if newest is None else time.monotonic() - newest.received_s
        if newest is None or age_s > max_age_s:
            raise RobotError(
                f"Expected feedback from the arm at {self._address[0]}:{self._address[1]} within "
                f"{1e3 * max_age_s:.0f} ms, the last came {'never' if newest is None else f'{age_s:.2f} s ago'}. "
                "Check its power, the cable, and that it is in TCP/IP mode."
            )
        return newest

    def wait(self, timeout_s: float) -> Feedback:
        """Returns the first packet, waiting for it; raises RobotError when none comes in time."""
        with self._has_news:
            self._has_news.wait_for(lambda: self._newest is not None, timeout_s)
        return self.newest(max_age_s=timeout_s)

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            # A refused or lost connection shows as age of the newest packet; that is what everybody checks.
            with contextlib.suppress(OSError), socket.create_connection(self._address, timeout=2.0) as connection:
                connection.settimeout(RECEIVE_TIMEOUT_S)
                self._read(connection)
            self._stop.wait(0.1)

    def _read(self, connection: socket.socket) -> None:
        buffer = bytearray()
        while not self._stop.is_set():
            received = connection.recv(65536)
            if not received:
                return
            buffer += received
            while len(buffer) >= PACKET_BYTES:
                self._take(buffer)

    def _take(self, buffer: bytearray) -> None:
        """Takes one packet from the front of the buffer, or the garbage before the next one."""
        try:
            feedback = parse(bytes(buffer[:PACKET_BYTES]), received_s=time.monotonic())
        except RobotError:
            self.num_bad += 1
            magic = buffer.find(struct.pack("<Q", MAGIC), MAGIC_OFFSET + 1)
            # Without a magic the tail may still hold the head of the next packet.
            del buffer[: magic - MAGIC_OFFSET if magic > 0 else max(1, len(buffer) - PACKET_BYTES)]
            return
        del buffer[:PACKET_BYTES]
        with self._has_news:
            self._newest = feedback
            self._has_news.notify_all()
