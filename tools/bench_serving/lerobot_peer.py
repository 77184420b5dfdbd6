"""LeRobot 0.4.4's asynchronous inference server and its client's calls, with our stand-in model instead of weights.

Its transport, queue and pickles are its own: it unpickles what comes to its port on loopback, which is open while this
part of the benchmark runs. We do not unpickle its answers, so that its round trip is shown a little faster than its
users see it. It serves one robot at a time.
"""

import logging
import pickle
import time
from collections.abc import Callable
from concurrent import futures

import grpc
import numpy as np
import torch
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.async_inference.helpers import TimedAction, TimedObservation
from lerobot.async_inference.policy_server import PolicyServer
from lerobot.transport import services_pb2_grpc
from lerobot.transport.services_pb2 import Empty, Observation  # pyright: ignore[reportAttributeAccessIssue] - generated
from lerobot.transport.utils import grpc_channel_options, send_bytes_in_chunks

from learner.server.inference import Policy


class _Server(PolicyServer):
    """Their server; only the call of the model is replaced."""

    def __init__(self, model: Policy) -> None:
        super().__init__(PolicyServerConfig(host="localhost", port=1, fps=50, inference_latency=0.0))
        self._model = model

    def _predict_action_chunk(self, observation_t: TimedObservation) -> list[TimedAction]:
        raw = observation_t.get_observation()
        cameras = np.stack([raw[name] for name in self._model.spec.camera_names])
        chunk = self._model.act(cameras[None], raw["state"][None], [raw["task"]])
        actions = list(torch.from_numpy(chunk[0]))
        return self._time_action_chunk(observation_t.get_timestamp(), actions, observation_t.get_timestep())


def start_server(model: Policy) -> tuple[int, Callable[[], object]]:
    """Returns the port of a running server, and what stops it."""
    logging.disable(logging.WARNING)  # It logs every request.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=grpc_channel_options())
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(_Server(model), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return port, lambda: server.stop(None).wait()


class LeRobotClient:
    """Sends an observation and fetches its chunk, as their robot client does."""

    def __init__(self, port: int) -> None:
        """Connects."""
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", grpc_channel_options())
        self._stub = services_pb2_grpc.AsyncInferenceStub(self._channel)
        self._stub.Ready(Empty())
        self._step = 0

    def act(self, images: dict[str, np.ndarray], state: np.ndarray, prompt: str) -> None:
        """Returns when the chunk is here."""
        raw = {**images, "state": state, "task": prompt}
        observation = TimedObservation(timestamp=time.time(), timestep=self._step, observation=raw, must_go=True)
        self._step += 1
        chunks = send_bytes_in_chunks(pickle.dumps(observation), Observation, log_prefix="", silent=True)
        self._stub.SendObservations(chunks)
        answer = self._stub.GetActions(Empty())
        if not answer.data:
            raise RuntimeError("LeRobot's server answered without actions; it dropped the observation.")

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()
