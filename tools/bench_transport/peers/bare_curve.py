"""The floor: the same bytes through encrypted sockets alone. No event is checked, written or kept.

A script, not a module of hiors: it imitates what is compared against. `serve`, or `send PORT FRAMES START SECONDS`.
"""

import json
import os
import sys
import threading
import time
from collections import deque

import numpy as np
import zmq

WINDOW = int(os.environ.get("BENCH_WINDOW", "24"))
"""Steps that may wait for an answer."""
PUBLIC, SECRET = b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"
"""The example pair of the CURVE documentation: what travels here is no secret."""


def serve() -> None:
    """Answers every step until standard input closes."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.set_hwm(0)
    socket.curve_server, socket.curve_publickey, socket.curve_secretkey = True, PUBLIC, SECRET
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    sys.stdout.write(json.dumps(port) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_answer, args=(socket,), daemon=True).start()
    sys.stdin.read()


def _answer(socket: zmq.Socket) -> None:
    while True:
        sender, *_ = socket.recv_multipart(copy=False)
        socket.send_multipart([sender.bytes, b"ok"])


def send(port: int, frames: np.ndarray, start_at_s: float, seconds: float) -> None:
    """Keeps a window of steps under way for a while; prints steps, seconds and latencies."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.curve_serverkey = PUBLIC
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.connect(f"tcp://127.0.0.1:{port}")
    steps = [each.tobytes() for each in frames]
    latencies: list[float] = []
    asked: deque[float] = deque()
    time.sleep(max(0.0, start_at_s - time.monotonic()))
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        while len(asked) < WINDOW:
            asked.append(time.monotonic())
            socket.send(steps[len(latencies) % len(steps)], copy=False)
        socket.recv()
        latencies.append(time.monotonic() - asked.popleft())
    percentiles = [1e3 * float(np.percentile(latencies, percent)) for percent in (50, 99)]
    found = {"steps": len(latencies), "seconds": time.monotonic() - began, "latencies_ms": percentiles}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        send(int(sys.argv[2]), np.load(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
