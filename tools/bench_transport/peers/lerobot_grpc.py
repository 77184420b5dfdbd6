"""LeRobot's own transport: its gRPC service, its chunking and its serialisation of transitions.

A script, not a module of hiors: it drives what is compared against. `serve`, or `send PORT FRAMES START SECONDS`.
LeRobot sends float32 pictures and serves three streams; here pictures stay uint8 and workers suffice for every actor,
both in its favour.
"""

import json
import sys
import time
from collections import deque
from concurrent import futures
from multiprocessing import Event
from queue import Queue

import grpc
import numpy as np
import torch
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import (
    MAX_MESSAGE_SIZE,
    bytes_to_transitions,
    grpc_channel_options,
    receive_bytes_in_chunks,
    send_bytes_in_chunks,
    transitions_to_bytes,
)


class Learner(services_pb2_grpc.LearnerServiceServicer):
    """Takes transitions as LeRobot's learner does, and decodes them before it answers."""

    def __init__(self) -> None:
        self._kept: deque[object] = deque(maxlen=256)

    def SendTransitions(self, request_iterator, _context):  # noqa: N802 - The service's own name.
        """Receives one message in chunks."""
        received: Queue[bytes] = Queue()
        receive_bytes_in_chunks(request_iterator, received, Event(), "")
        while not received.empty():
            self._kept.extend(bytes_to_transitions(received.get()))
        return services_pb2.Empty()  # pyright: ignore[reportAttributeAccessIssue] - Made at run time.


def serve() -> None:
    """Serves until standard input closes."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
            ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
        ],
    )
    services_pb2_grpc.add_LearnerServiceServicer_to_server(Learner(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(json.dumps(port) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(None)


def send(port: int, frames: np.ndarray, start_at_s: float, seconds: float) -> None:
    """Sends one transition per message for a while; prints steps, seconds and latencies."""
    torch.set_num_threads(1)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=grpc_channel_options())
    stub = services_pb2_grpc.LearnerServiceStub(channel)
    grpc.channel_ready_future(channel).result(60)
    latencies = []
    time.sleep(max(0.0, start_at_s - time.monotonic()))
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        asked = time.monotonic()
        packed = transitions_to_bytes([transition(frames, len(latencies))])  # pyright: ignore[reportArgumentType]
        kind = services_pb2.Transition  # pyright: ignore[reportAttributeAccessIssue] - Made at run time.
        stub.SendTransitions(send_bytes_in_chunks(packed, kind))
        latencies.append(time.monotonic() - asked)
    percentiles = [1e3 * float(np.percentile(latencies, percent)) for percent in (50, 99)]
    found = {"steps": len(latencies), "seconds": time.monotonic() - began, "latencies_ms": percentiles}
    sys.stdout.write(json.dumps(found) + "\n")


def transition(frames: np.ndarray, step: int) -> dict[str, object]:
    """Returns one of LeRobot's transitions: a batch of one, with both observations."""
    return {
        "state": _observation(frames, step),
        "action": torch.zeros(1, 50, 14),
        "reward": 0.0,
        "next_state": _observation(frames, step + 1),
        "done": False,
        "truncated": False,
        "complementary_info": {"discrete_penalty": torch.zeros(1)},
    }


def _observation(frames: np.ndarray, step: int) -> dict[str, torch.Tensor]:
    seen = frames[step % len(frames)]
    images = {f"observation.images.cam_{n}": torch.from_numpy(image)[None] for n, image in enumerate(seen)}
    return {**images, "observation.state": torch.zeros(1, 14)}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        send(int(sys.argv[2]), np.load(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
