"""Answers action requests of all actors with few policy calls: requests that wait together share one batch.

    submit -> queue -> gather (max_batch, max_wait_ms) -> drop the late -> decode -> policy.act -> reply
                          ^ a newer policy is taken over here, between batches

Imports no torch: what a policy is made of is its own affair.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from learner.lifetime import Worker
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import HiorsError, PolicyError
from serl_launcher.events import EncodedObservation, decode_vector
from serl_launcher.images import decode_image
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import ActReply, ErrorReply

logger = logging.getLogger(__name__)

Reply = Callable[[ActReply | ErrorReply, np.ndarray | None], None]
"""Takes the answer and, for an `ActReply`, float32 [B, H, A]. Called from the inference thread."""

_IDLE_S = 0.2
_MAX_MESSAGE_CHARS = 2000


class Policy(Protocol):
    """What acts."""

    spec: RobotSpec

    def act(self, images: np.ndarray, state: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Returns float32 [B, H, A] for uint8 [B, C, height, width, 3], float32 [B, S] and B prompts."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy and its version; never changed, only replaced."""

    policy: Policy
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One actor's question: observations of one or more lanes."""

    key: Hashable
    observations: Sequence[EncodedObservation]
    deadline_s: float
    """Monotonic time after which nobody waits for the answer."""
    reply: Reply
    arrived_s: float


class NoInference:
    """Stands in where no policy exists (`algo=data_collection`): every request is refused."""

    policy_version = -1

    def submit(
        self, request_key: Hashable, observations: Sequence[EncodedObservation], deadline_monotonic: float, reply: Reply
    ) -> None:
        """Answers at once that there is no policy."""
        refusal = "No policy: this learner only collects data (algo=data_collection). Use actor.mode=collect."
        reply(_error(PolicyError(refusal)), None)

    def figures(self) -> dict[str, float]:
        """Returns nothing: nothing is answered."""
        return {}


class InferenceService:
    """Batches requests in a thread of its own."""

    def __init__(self, config: ServerConfig) -> None:
        """Answers that no policy is there until `swap` brings the first one."""
        self._config = config
        self._requests: queue.Queue[Request] = queue.Queue()
        self._postponed: Request | None = None
        self._loaded: LoadedPolicy | None = None
        self._worker = Worker("inference", self._work)
        self.num_answered = 0
        """Observations answered."""
        self.num_expired = 0
        """Observations whose deadline passed in the queue."""
        self.num_calls = 0
        """Policy calls."""
        self.model_ms = 0.0
        """Duration of the last policy call."""

    @property
    def policy_version(self) -> int:
        """Version of the weights in force, -1 before the first."""
        loaded = self._loaded
        return -1 if loaded is None else loaded.version

    def start(self) -> None:
        """Starts the thread."""
        self._worker.start()

    def stop(self) -> None:
        """Ends the thread; waiting requests are refused."""
        self._worker.stop()

    def check(self) -> None:
        """Raises HiorsError where the thread failed."""
        self._worker.check()

    def figures(self) -> dict[str, float]:
        """Returns how much was answered, in how many calls, and how long the last call took."""
        return {
            "num_answered": self.num_answered,
            "num_expired": self.num_expired,
            "num_calls": self.num_calls,
            "model_ms": round(self.model_ms, 2),
        }

    def swap(self, policy: Policy, version: int) -> None:
        """Takes over a policy that is ready to act; the batch under way is finished with the old one."""
        self._loaded = LoadedPolicy(policy=policy, version=version)

    def submit(
        self, request_key: Hashable, observations: Sequence[EncodedObservation], deadline_monotonic: float, reply: Reply
    ) -> None:
        """Takes a request; `reply` is called once, from the inference thread. Never blocks.

        Args:
            request_key: Whatever tells requests apart, for logs.
            observations: One per lane.
            deadline_monotonic: `time.monotonic()` after which the answer is of no use.
            reply: Takes the answer.
        """
        self._requests.put(
            Request(
                key=request_key, observations=observations, deadline_s=deadline_monotonic, reply=reply,
                arrived_s=time.monotonic(),
            )
        )  # fmt: skip

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            batch = self._gather()
            if batch:
                self._answer(batch)
        left = [] if self._postponed is None else [self._postponed]
        while not self._requests.empty():
            left.append(self._requests.get())
        _refuse(left, PolicyError("The learner is ending."))

    def _gather(self) -> list[Request]:
        """Returns requests that share a policy call, none after a while without any."""
        first = self._postponed or self._next(_IDLE_S)
        self._postponed = None
        if first is None:
            return []
        batch, size = [first], len(first.observations)
        until = time.monotonic() + self._config.max_wait_ms / 1e3
        while size < self._config.max_batch:
            request = self._next(max(until - time.monotonic(), 0.0))
            if request is None:
                break
            if size + len(request.observations) > self._config.max_batch:
                self._postponed = request
                break
            batch.append(request)
            size += len(request.observations)
        return batch

    def _next(self, timeout_s: float) -> Request | None:
        try:
            return self._requests.get(timeout=timeout_s) if timeout_s > 0 else self._requests.get_nowait()
        except queue.Empty:
            return None

    def _answer(self, batch: list[Request]) -> None:
        batch = self._without_expired(batch)
        loaded = self._loaded
        if loaded is None:
            _refuse(batch, PolicyError("No policy is published yet. The trainer publishes one when it starts."))
            return
        decoded = [(request, _decoded_or_refused(request, loaded.policy.spec)) for request in batch]
        self._act(loaded, [(request, lanes) for request, lanes in decoded if lanes is not None])

    def _without_expired(self, batch: list[Request]) -> list[Request]:
        now = time.monotonic()
        late = [request for request in batch if request.deadline_s < now]
        for request in late:
            self.num_expired += len(request.observations)
            waited_ms = 1e3 * (now - request.arrived_s)
            request.reply(ErrorReply("DeadlineExceeded", f"The request waited {waited_ms:.0f} ms in the queue."), None)
        return [request for request in batch if request.deadline_s >= now]

    def _act(self, loaded: LoadedPolicy, batch: "list[tuple[Request, Lanes]]") -> None:
        if not batch:
            return
        started = time.monotonic()
        try:
            actions = loaded.policy.act(
                np.concatenate([lanes.images for _, lanes in batch]),
                np.concatenate([lanes.state for _, lanes in batch]),
                [prompt for _, lanes in batch for prompt in lanes.prompts],
            )
        except Exception as exc:  # Whatever a model raises must reach the actors, and must not end the thread.
            logger.exception("Policy %d failed on %d requests.", loaded.version, len(batch))
            _refuse([request for request, _ in batch], exc)
            return
        self.model_ms = 1e3 * (time.monotonic() - started)
        self.num_calls += 1
        first = 0
        for request, lanes in batch:
            rows = actions[first : first + len(lanes.prompts)]
            first += len(lanes.prompts)
            self._reply(request, rows, version=loaded.version, started_s=started)

    def _reply(self, request: Request, actions: np.ndarray, *, version: int, started_s: float) -> None:
        if not np.isfinite(actions).all():
            _refuse([request], PolicyError(f"Policy {version} gave actions that are not finite; the robot must hold."))
            return
        self.num_answered += len(actions)
        timings = {"queue": 1e3 * (started_s - request.arrived_s), "model": self.model_ms}
        reply = ActReply(policy_version=version, horizon=actions.shape[1], action_dim=actions.shape[2], timings=timings)
        request.reply(reply, np.ascontiguousarray(actions, np.float32))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lanes:
    """Decoded observations of one request."""

    images: np.ndarray
    """uint8 [B, C, height, width, 3], cameras in the order of the robot's spec."""
    state: np.ndarray
    """float32 [B, S]."""
    prompts: list[str]


def decode_lanes(observations: Sequence[EncodedObservation], spec: RobotSpec) -> Lanes:
    """Decodes observations; raises ProtocolError where one does not fit the robot."""
    images = [
        np.stack([decode_image(observation.images.get(camera.name, b""), camera.shape) for camera in spec.cameras])
        for observation in observations
    ]
    state = [decode_vector(observation.state, spec.state_dim, "state") for observation in observations]
    return Lanes(
        images=np.stack(images), state=np.stack(state), prompts=[observation.prompt for observation in observations]
    )


def _decoded_or_refused(request: Request, spec: RobotSpec) -> Lanes | None:
    try:
        return decode_lanes(request.observations, spec)
    except (HiorsError, ValueError) as exc:
        _refuse([request], exc)
        return None


def _refuse(requests: Sequence[Request], exc: BaseException) -> None:
    for request in requests:
        request.reply(_error(exc), None)


def _error(exc: BaseException) -> ErrorReply:
    is_ours = isinstance(exc, HiorsError)
    kind = type(exc).__name__ if is_ours else PolicyError.__name__
    message = str(exc) if is_ours else f"{type(exc).__name__}: {exc}"
    return ErrorReply(kind, message[:_MAX_MESSAGE_CHARS])
