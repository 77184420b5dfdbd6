"""Wakes a thread that waits for descriptors."""

import contextlib
import socket


class Waker:
    """Wakes one polling thread from any other. May be called from anywhere, never blocks."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.settimeout(0)
        self._sender.settimeout(0)

    def wake(self) -> None:
        """Makes the current or the next poll return at once."""
        with contextlib.suppress(BlockingIOError, OSError):  # Full: it wakes anyway. Closed: nobody is asleep.
            self._sender.send(b"\0")

    def drain(self) -> None:
        """Forgets the wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def fileno(self) -> int:
        """Returns the descriptor to poll."""
        return self._receiver.fileno()

    def close(self) -> None:
        """Frees the descriptors."""
        self._receiver.close()
        self._sender.close()
