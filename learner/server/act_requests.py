"""Asks the policy what actors ask, and bounds how much waits for its answers."""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec
import numpy as np

from learner.server.backend import InferenceBackend
from learner.server.sessions import Session
from serl_launcher.errors import PolicyError
from serl_launcher.transport import act_frames
from serl_launcher.transport.messages import Act, ActReply, ErrorReply, Frames

MAX_ACT_REQUESTS = 64
"""Unanswered action requests per actor."""
MAX_ACT_BYTES = 256 * 1024 * 1024
"""Their observations together."""


class Send(Protocol):
    """Answers a connection, in a turn of the sockets."""

    def __call__(self, connection: bytes, message: ActReply | ErrorReply, *frames: bytes) -> None: ...


class ActRequests:
    """The action requests of all actors on their way through inference."""

    def __init__(self, inference: InferenceBackend, *, post: Callable[[Callable[[], None]], None], send: Send) -> None:
        """Prepares to ask `inference`; `post` has something done in a turn of the sockets, from any thread."""
        self._inference = inference
        self._post = post
        self._send = send

    def ask(self, session: Session, request: Act, frames: Frames, *, action_dim: int) -> None:
        """Asks for actions; the answer is sent when it is there.

        Raises:
            PolicyError: Too much of this actor waits already.
            ProtocolError: The frames are not what the header says.
        """
        load, num_bytes = session.load, sum(map(len, frames))
        if load.num_act_requests >= MAX_ACT_REQUESTS:
            raise PolicyError(f"Expected at most {MAX_ACT_REQUESTS} unanswered action requests, got one more.")
        if load.num_act_bytes + num_bytes > MAX_ACT_BYTES:
            raise PolicyError(
                f"Expected unanswered action requests of at most {MAX_ACT_BYTES} bytes together, got {num_bytes} bytes "
                f"after {load.num_act_bytes}."
            )
        observations, unfinished = act_frames.decode_act(request, frames, action_dim)
        load.num_act_requests += 1
        load.num_act_bytes += num_bytes

        def give(reply: ActReply | ErrorReply, actions: np.ndarray | None) -> None:
            load.num_act_requests -= 1
            load.num_act_bytes -= num_bytes
            answer = msgspec.structs.replace(reply, request_id=request.request_id)
            rest = [] if actions is None else [np.ascontiguousarray(actions, "<f4").tobytes()]
            self._send(session.connection, answer, *rest)

        self._inference.submit(
            (session.actor_id, request.request_id),
            observations,
            time.monotonic() + 1e-3 * request.deadline_ms,
            lambda reply, actions: self._post(partial(give, reply, actions)),
            unfinished,
        )
