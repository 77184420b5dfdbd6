"""openpi's websocket protocol in front of the inference service.

    connect ->                 <- metadata (binary)
    observation (binary) ->    <- actions, policy_timing, server_timing (binary)
    anything bad ->            <- traceback (text), close 1011

One event loop serves all clients and answers their pings; policies run in the inference thread, which batches what
waits together. GET /healthz is answered at any time: 503 before a policy is loaded, 200 from then on.
"""

import asyncio
import hmac
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from learner.serve.packing import pack, unpack
from learner.serve.recording import Recording
from learner.serve.robots import ServedRobot
from learner.server.inference import InferenceService
from serl_launcher.errors import ConfigError, ProtocolError
from serl_launcher.transport.messages import ActReply, ErrorReply, error_of

logger = logging.getLogger(__name__)

INTERNAL_ERROR = 1011
CLOSE_REASON = "Internal server error. Traceback included in previous frame."
MAX_INLINE_PIXELS = 3 * 256 * 256
"""Observations with more pixels are prepared in another thread, so that resizing holds up no other client."""
STOP_GRACE_S = 2.0
_NOT_READY = (HTTPStatus.SERVICE_UNAVAILABLE, "No policy is published yet. The trainer publishes one when it starts.\n")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointConfig:
    """Where to listen, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    """Clients must send `Authorization: Api-Key <key>`; None asks for nothing."""
    insecure: bool = False
    """Allow listening beyond loopback without a key. Anybody on that network can then use the policy."""
    max_message_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.api_key is None and not self.insecure and self.host not in _LOOPBACK:
            raise ConfigError(
                f"Listening on {self.host!r} needs an API key (--api-key-file), or --insecure where everybody on that "
                "network may drive the robots."
            )


class Endpoint:
    """Serves one robot's policy to any number of clients."""

    def __init__(
        self,
        config: EndpointConfig,
        inference: InferenceService,
        robot: Callable[[], ServedRobot],
        *,
        recording: Recording | None = None,
    ) -> None:
        """Prepares to serve; `robot` is asked at each connection, when a policy may just have come."""
        self._config = config
        self._inference = inference
        self._robot = robot
        self._recording = recording
        self._server: Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._num_requests = 0
        self._num_failed = 0

    def figures(self) -> dict[str, int]:
        """Returns clients connected now, and requests since the start; may be called from any thread."""
        return {
            "num_clients": len(self._clients), "num_requests": self._num_requests, "num_failed": self._num_failed
        }  # fmt: skip

    @property
    def port(self) -> int:
        """Port it listens on, once `start` returned."""
        assert self._server is not None, "start comes first"
        return next(iter(self._server.sockets)).getsockname()[1]

    async def start(self) -> None:
        """Opens the port."""
        logging.getLogger("websockets").setLevel(logging.WARNING)  # It tells of every connection.
        self._server = await serve(
            self._serve_client, self._config.host, self._config.port, compression=None,
            max_size=self._config.max_message_bytes, process_request=self._admit,
        )  # fmt: skip

    async def stop(self) -> None:
        """Closes every connection and the port; clients whose answer takes longer than a moment get none."""
        if self._server is None:
            return
        self._server.close()
        if self._clients:
            _, still_waiting = await asyncio.wait(self._clients, timeout=STOP_GRACE_S)
            for client in still_waiting:
                client.cancel()
        await self._server.wait_closed()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers health checks, refuses clients without the key, or before a policy is there; None: the handshake."""
        is_ready = self._inference.policy_version >= 0
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n") if is_ready else connection.respond(*_NOT_READY)
        given = request.headers.get("Authorization", "").encode()
        if self._config.api_key is not None:
            wanted = f"Api-Key {self._config.api_key}".encode()
            if not hmac.compare_digest(given, wanted):
                logger.warning("A client at %s has no valid API key.", connection.remote_address)
                return connection.respond(
                    HTTPStatus.UNAUTHORIZED, "Expected the header `Authorization: Api-Key <key>` with a valid key.\n"
                )
        return None if is_ready else connection.respond(*_NOT_READY)

    async def _serve_client(self, connection: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        client = str(connection.remote_address)
        try:
            robot = self._robot()
            await connection.send(pack({**robot.metadata, "policy_version": self._inference.policy_version}))
            await self._answer_all(connection, robot, client)
        except ConnectionClosed:
            logger.debug("Client %s has gone.", client)
        except Exception as exc:  # The protocol tells the client whatever happened, and ends only its connection.
            self._num_failed += 1
            logger.warning("Client %s is refused: %s: %s", client, type(exc).__name__, exc)
            await _send_traceback(connection)
        finally:
            self._clients.discard(task)

    async def _answer_all(self, connection: ServerConnection, robot: ServedRobot, client: str) -> None:
        prev_total_ms: float | None = None
        async for frame in connection:
            started = time.perf_counter()
            self._num_requests += 1
            observation = _observation_of(frame)
            reply, policy_ms = await self._infer(robot, observation, client)
            infer_ms = 1e3 * (time.perf_counter() - started)
            server_timing = {"infer_ms": infer_ms}
            if prev_total_ms is not None:
                server_timing["prev_total_ms"] = prev_total_ms
            output = {**reply, "policy_timing": {"infer_ms": policy_ms}, "server_timing": server_timing}
            await connection.send(pack(output))
            prev_total_ms = 1e3 * (time.perf_counter() - started)
            if self._recording is not None:
                self._recording.keep(observation, output)

    async def _infer(
        self, robot: ServedRobot, observation: dict[str, Any], client: str
    ) -> tuple[dict[str, Any], float]:
        """Returns the robot's reply and the duration of the policy call in milliseconds."""
        if _num_pixels(observation) > MAX_INLINE_PIXELS:
            lanes = await asyncio.to_thread(robot.lanes_of, observation)
        else:
            lanes = robot.lanes_of(observation)
        answer: Future[tuple[ActReply, np.ndarray]] = Future()
        # Without a deadline: the protocol knows none, and a first compile may take minutes.
        self._inference.submit((client, 0), lanes, math.inf, lambda reply, actions: _settle(answer, reply, actions))
        reply, actions = await asyncio.wrap_future(answer)
        return robot.reply_of(actions[0], lanes), reply.timings["model"]


class EndpointThread:
    """An endpoint with an event loop of its own, beside other threads of a process."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepares the thread."""
        self._endpoint = endpoint
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openpi-endpoint", daemon=True)

    def start(self) -> None:
        """Opens the port; raises OSError where it is in use."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._endpoint.start(), self._loop).result()

    def stop(self) -> None:
        """Closes the port and ends the thread. May be called twice."""
        if not self._thread.is_alive():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._endpoint.stop(), self._loop).result(10)
        except TimeoutError:  # Whoever ends this has more to end.
            logger.warning("The connections of the openpi endpoint did not close within 10 s.")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _settle(
    answer: "Future[tuple[ActReply, np.ndarray]]", reply: ActReply | ErrorReply, actions: np.ndarray | None
) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    if isinstance(reply, ErrorReply) or actions is None:
        assert isinstance(reply, ErrorReply)
        answer.set_exception(error_of(reply))
    else:
        answer.set_result((reply, actions))


def _observation_of(frame: str | bytes) -> dict[str, Any]:
    """Returns the observation in a frame, also where it is wrapped as `{"method": "infer", "obs": ...}`."""
    if isinstance(frame, str):
        raise ProtocolError("Expected a binary frame with an observation, got text.")
    observation = unpack(frame)
    if not isinstance(observation, dict) or not all(isinstance(key, str) for key in observation):
        raise ProtocolError(f"Expected a map of names, got {type(observation).__name__}.")
    if "method" in observation and "obs" in observation:
        if observation["method"] != "infer" or not isinstance(observation["obs"], dict):
            raise ProtocolError(f"Expected method 'infer' with a map, got method {observation['method']!r}.")
        return observation["obs"]
    return observation


def _num_pixels(observation: dict[str, Any]) -> int:
    sizes = [value.size for value in observation.values() if isinstance(value, np.ndarray)]
    nested = [_num_pixels(value) for value in observation.values() if isinstance(value, dict)]
    return sum(sizes) // 3 + sum(nested)


async def _send_traceback(connection: ServerConnection) -> None:
    try:
        await connection.send(traceback.format_exc())
        await connection.close(code=INTERNAL_ERROR, reason=CLOSE_REASON)
    except ConnectionClosed:
        logger.debug("The client left before it heard the error.")
