"""The REQ/REP pattern of HIL-SERL's family: lz4-compressed pickles of transitions with both observations.

A script, not a module of hiors: it imitates what is compared against. `serve`, or `send PORT FRAMES START SECONDS`.
"""

import io
import json
import pickle
import sys
import threading
import time
from collections import deque

import lz4.frame
import numpy as np
import zmq

COMPRESSION_LEVEL = 1
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy._core.numeric", "_frombuffer"),
            ("numpy._core.multiarray", "_reconstruct")}  # fmt: skip


class _Arrays(pickle.Unpickler):
    """Reads transitions of arrays and nothing else: the port is open to everybody on this machine."""

    def find_class(self, module_name: str, global_name: str) -> object:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"Expected arrays, got {module_name}.{global_name}.")
        return super().find_class(module_name, global_name)


def load(packed: bytes) -> object:
    """Returns a transition, or an answer; raises UnpicklingError on anything else."""
    return _Arrays(io.BytesIO(packed)).load()


def serve() -> None:
    """Answers every transition until standard input closes."""
    socket = zmq.Context().socket(zmq.REP)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    sys.stdout.write(json.dumps(port) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_answer, args=(socket,), daemon=True).start()
    sys.stdin.read()


def _answer(socket: zmq.Socket) -> None:
    kept: deque[object] = deque(maxlen=256)
    answer = lz4.frame.compress(pickle.dumps({"success": True}), compression_level=COMPRESSION_LEVEL)
    while True:
        kept.append(load(lz4.frame.decompress(socket.recv())))
        socket.send(answer)


def send(port: int, frames: np.ndarray, start_at_s: float, seconds: float) -> None:
    """Sends one transition per request for a while; prints steps, seconds and latencies."""
    socket = zmq.Context().socket(zmq.REQ)
    socket.connect(f"tcp://127.0.0.1:{port}")
    latencies = []
    time.sleep(max(0.0, start_at_s - time.monotonic()))
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        asked = time.monotonic()
        packed = pickle.dumps(transition(frames, len(latencies)))
        socket.send(lz4.frame.compress(packed, compression_level=COMPRESSION_LEVEL))
        load(lz4.frame.decompress(socket.recv()))
        latencies.append(time.monotonic() - asked)
    percentiles = [1e3 * float(np.percentile(latencies, percent)) for percent in (50, 99)]
    found = {"steps": len(latencies), "seconds": time.monotonic() - began, "latencies_ms": percentiles}
    sys.stdout.write(json.dumps(found) + "\n")


def transition(frames: np.ndarray, step: int) -> dict[str, object]:
    """Returns what those actors send: the observation, the one after it, action, reward, mask and done."""
    return {
        "observations": _observation(frames, step),
        "next_observations": _observation(frames, step + 1),
        "actions": np.zeros((50, 14), np.float32),
        "rewards": 0.0,
        "masks": 1.0,
        "dones": False,
    }


def _observation(frames: np.ndarray, step: int) -> dict[str, np.ndarray]:
    seen = frames[step % len(frames)]
    return {**{f"cam_{number}": image for number, image in enumerate(seen)}, "state": np.zeros(14, np.float32)}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        send(int(sys.argv[2]), np.load(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
