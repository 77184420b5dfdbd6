"""The sockets alone: the same bytes there and back through the same ZeroMQ sockets, without anything of ours between.

What a round trip costs more than this is ours; what this costs is the machine's, the kernel's and the encryption's.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from learner.server.access import Access
from serl_launcher.config.transport import TransportConfig
from serl_launcher.transport.keys import read_actor_keys
from serl_launcher.transport.sockets import ActorSockets, LearnerSockets
from serl_launcher.transport.waker import Waker
from tools.bench_serving.model import HORIZON
from tools.bench_workload import NUM_JOINTS

_ANSWER = bytes(4 * HORIZON * NUM_JOINTS)
_WAIT_S = 1.0


def start_server(config: TransportConfig) -> tuple[tuple[int, int], Callable[[], object]]:
    """Returns the ports of a running echo, and what stops it."""
    access, waker, stop = Access(Path(config.keys_dir) if config.keys_dir else None), Waker(), threading.Event()
    sockets = LearnerSockets(config, keys=access.read_keys(), is_allowed=access.may_connect, waker=waker)

    def serve() -> None:
        with sockets:
            while not stop.is_set():
                sockets.wait(_WAIT_S)
                sockets.authenticate()
                while (received := sockets.receive()) is not None:
                    sockets.send(received[0], [b"", _ANSWER])

    thread = threading.Thread(target=serve)
    thread.start()

    def end() -> None:
        stop.set()
        waker.wake()
        thread.join()

    return sockets.ports, end


class FloorClient:
    """Asks in the calling thread."""

    def __init__(self, config: TransportConfig, actor_id: str) -> None:
        """Connects."""
        keys = read_actor_keys(Path(config.keys_dir), actor_id) if config.keys_dir else None
        self._waker = Waker()
        self._sockets = ActorSockets(config, "127.0.0.1", keys=keys, waker=self._waker)

    def ask(self, frames: list[bytes]) -> None:
        """Sends frames and waits for the answer."""
        while not self._sockets.send(frames):
            self._sockets.wait(0.01)
        while self._sockets.receive() is None:
            self._sockets.wait(_WAIT_S)

    def close(self) -> None:
        """Ends the connection."""
        self._sockets.close()
        self._waker.close()
