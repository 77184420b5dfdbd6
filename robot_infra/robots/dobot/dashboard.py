"""The command port of a Dobot controller (29999): one line of text, one answer `ErrorID,{values},Command(...);`."""

import contextlib
import re
import socket
import threading
import time

from serl_launcher.errors import RobotError

ANSWER = re.compile(r"^\s*(-?\d+)\s*,\s*\{(.*?)\}\s*,\s*(\w+)\(.*\)\s*;?\s*$", re.DOTALL)
MAX_ANSWER_BYTES = 65536


class CommandRefused(RobotError):
    """The controller understood a command and said no."""


class Dashboard:
    """One connection to a controller; may be used from any thread."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 1.0) -> None:
        """Connects.

        Raises:
            RobotError: Nothing answers there.
        """
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        with self._lock:
            self._connect()

    def ask(self, command: str, *, timeout_s: float | None = None) -> list[str]:
        """Sends a command such as `RobotMode()`; returns the values in the answer's braces.

        Raises:
            RobotError: No answer in time, an answer to something else, or an error id that is not 0. After a lost or
                confused connection the next call makes a new one.
        """
        deadline_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            if self._connection is None:
                self._connect()
            try:
                answer = self._exchange(command, deadline_s)
                values = self._values(command, answer)
            except OSError as exc:
                self._drop()
                raise RobotError(f"No answer from the arm at {self._where} to {command}: {exc}.") from exc
        return values

    def close(self) -> None:
        """Ends the connection; may be called twice."""
        with self._lock:
            self._drop()

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    def _connect(self) -> None:
        try:
            self._connection = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            raise RobotError(
                f"Expected a Dobot controller at {self._where}: {exc}. Check power and cable, and set the arm to "
                "TCP/IP mode."
            ) from exc

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None

    def _exchange(self, command: str, deadline_s: float) -> str:
        assert self._connection is not None, "Callers connect first."
        self._connection.settimeout(max(deadline_s - time.monotonic(), 1e-3))
        self._connection.sendall(command.encode())
        answer = b""
        while b";" not in answer:
            self._connection.settimeout(max(deadline_s - time.monotonic(), 1e-3))
            received = self._connection.recv(4096)
            if not received:
                raise ConnectionResetError("the controller closed the connection")
            answer += received
            if len(answer) > MAX_ANSWER_BYTES:
                raise ConnectionResetError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        return answer.decode(errors="replace")

    def _values(self, command: str, answer: str) -> list[str]:
        """Returns the values; an answer that does not belong to the command ends the connection."""
        match = ANSWER.match(answer)
        name = command.partition("(")[0]
        if match is None or match[3] != name:
            self._drop()
            raise RobotError(f"Expected an answer to {command} from {self._where}, got {answer[:200]!r}.")
        if match[1] != "0":
            raise CommandRefused(
                f"The arm at {self._where} refused {command} with error {match[1]}. "
                "-1: could not execute, e.g. an alarm is on or it is not enabled; -10000: unknown command; "
                "-20000 and beyond: wrong parameters."
            )
        return [value.strip() for value in match[2].split(",")] if match[2].strip() else []
