"""Answers action requests of all actors with few policy calls: requests that wait together share one batch.

    submit -> queue -> gather (max_batch, max_wait_ms) -> drop the late -> decode -> policy.act -> reply
                          ^ a newer policy is taken over here, between batches

A policy call that fails is repeated on halves of its batch, so that one bad request harms no other and a batch that
is too large for the memory shrinks. A version that fails on its first request gives way to the last one that answered,
where that one can answer the request. Images of requests that wait are decoded while the policy acts on others.
Every request gets exactly one answer. Imports no torch: what a policy is made of is its own affair.
"""

import logging
import threading
import time
from collections.abc import Hashable, Sequence

import numpy as np

from learner.lifetime import Worker
from learner.server.decoding import Decoder
from learner.server.failures import forget_frames, has_lost_device, is_out_of_memory, release_device_memory
from learner.server.inference_metrics import InferenceMetrics
from learner.server.lanes import Lanes, decode_lanes, join_lanes
from learner.server.recent_calls import RecentCalls
from learner.server.request_queue import RequestQueue
from learner.server.requests import Batch, LanesPolicy, LoadedPolicy, Policy, Reply, Request, refuse
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import HiorsError, PolicyError
from serl_launcher.events import EncodedObservation
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import ActReply, ErrorReply
from serl_launcher.types import Unfinished

logger = logging.getLogger(__name__)


class InferenceService:
    """Batches requests in a thread of its own."""

    def __init__(self, config: ServerConfig) -> None:
        """Answers that no policy is there until `swap` brings the first one."""
        self._queue = RequestQueue(max_batch=config.max_batch, max_wait_ms=config.max_wait_ms)
        self._loaded: LoadedPolicy | None = None
        self._proven: LoadedPolicy | None = None
        self._decoder = Decoder()
        self._device_failure: Exception | None = None
        self._worker = Worker("inference", self._work)
        self.metrics = InferenceMetrics()
        self.recent_calls = RecentCalls()

    @property
    def policy_version(self) -> int:
        """Version of the weights in force, -1 before the first."""
        loaded = self._loaded
        return -1 if loaded is None else loaded.version

    @property
    def spec(self) -> RobotSpec | None:
        """The robot of the weights in force, None before the first."""
        loaded = self._loaded
        return None if loaded is None else loaded.policy.spec

    def start(self) -> None:
        """Starts the thread."""
        self._worker.start()

    def stop(self) -> None:
        """Ends the thread; waiting requests are refused."""
        self._worker.stop()
        self._decoder.stop()

    def check(self) -> None:
        """Raises HiorsError where the thread failed."""
        self._worker.check()

    def figures(self) -> dict[str, float]:
        """Returns what is measured; may be called from any thread."""
        return self.metrics.figures(self._queue.qsize())

    def swap(self, policy: Policy, version: int) -> None:
        """Takes over a policy that is ready to act; the batch under way is finished with the old one."""
        self._loaded = LoadedPolicy(policy=policy, version=version)
        self.metrics.swapped_s = time.monotonic()

    def submit(
        self,
        request_key: Hashable,
        observations: Sequence[EncodedObservation] | Lanes,
        deadline_monotonic: float,
        reply: Reply,
        unfinished: Sequence[Unfinished | None] = (),
    ) -> None:
        """Takes a request; `reply` is called once, from the inference thread. Never blocks.

        Args:
            request_key: Whatever tells requests apart; of a pair, the first names who asks.
            observations: One per lane; `Lanes` are decoded already.
            deadline_monotonic: `time.monotonic()` after which the answer is of no use.
            reply: Takes the answer.
            unfinished: What each lane is still executing; empty where that is not known.
        """
        spec, decoding = self.spec, None
        # An idle inference thread decodes itself: to hand one request over would take longer than it saves.
        if not self._queue.is_idle and spec is not None and not isinstance(observations, Lanes):
            decoding = self._decoder.begin(observations, spec, unfinished)
        self._queue.put(
            Request(
                key=request_key, observations=observations, deadline_s=deadline_monotonic, reply=reply,
                arrived_s=time.monotonic(), unfinished=unfinished, decoding=decoding,
            )
        )  # fmt: skip

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set() and self._device_failure is None:
            batch = self._queue.gather()
            if batch:
                self._answer(batch)
        refuse(self._queue.drain(), PolicyError("The learner is ending."))
        if self._device_failure is not None:
            raise PolicyError(
                f"The GPU is lost to this process, which must be started again: {self._device_failure}"
            ) from self._device_failure

    def _answer(self, requests: list[Request]) -> None:
        requests = self._without_expired(requests)
        loaded = self._loaded
        if loaded is None:
            refuse(requests, PolicyError("No policy is published yet. The trainer publishes one when it starts."))
            return
        decoded = [(request, _decoded_or_refused(request, loaded.policy.spec)) for request in requests]
        self._act(loaded, [(request, lanes) for request, lanes in decoded if lanes is not None])

    def _without_expired(self, requests: list[Request]) -> list[Request]:
        now = time.monotonic()
        late = [request for request in requests if request.deadline_s < now]
        for request in late:
            self.metrics.note_expired(request.key, len(request))
            waited_ms = 1e3 * (now - request.arrived_s)
            request.reply(ErrorReply("DeadlineExceeded", f"The request waited {waited_ms:.0f} ms in the queue."), None)
        return [request for request in requests if request.deadline_s >= now]

    def _act(self, loaded: LoadedPolicy, batch: Batch) -> None:
        if not batch:
            return
        started = time.monotonic()
        lanes = join_lanes([lanes for _, lanes in batch])
        actions = _attempt(loaded.policy, lanes)
        if isinstance(actions, Exception):
            self._recover(loaded, batch, actions)
            return
        if np.isfinite(actions).all():
            self.recent_calls.note(lanes)
        self.metrics.note_call(len(actions), 1e3 * (time.monotonic() - started))
        first = 0
        for request, lanes in batch:
            rows = actions[first : first + len(lanes)]
            first += len(lanes)
            if np.isfinite(rows).all():
                self._reply(loaded, request, rows, started_s=started)
            else:
                self._recover(loaded, [(request, lanes)], _not_finite(loaded))

    def _recover(self, loaded: LoadedPolicy, batch: Batch, exc: Exception) -> None:
        """Answers a batch whose call failed: by halves, by the last version that answered, or with the error."""
        self.metrics.num_failed_calls += 1
        if has_lost_device(exc, getattr(loaded.policy, "device", None)):
            self._device_failure = exc
            self._refuse(batch, exc)
            return
        if is_out_of_memory(exc):
            release_device_memory()
        if len(batch) > 1:
            half = len(batch) // 2
            if is_out_of_memory(exc):
                self._queue.max_batch = max(1, sum(len(lanes) for _, lanes in batch) // 2)
                logger.warning("Out of memory; batches have at most %d observations now.", self._queue.max_batch)
            self._act(loaded, batch[:half])
            self._act(self._trusted(loaded), batch[half:])
            return
        if self._fall_back(loaded, batch, exc):
            return
        if not isinstance(exc, HiorsError):
            logger.error("Policy %d failed.", loaded.version, exc_info=exc)
        self._refuse(batch, exc)

    def _fall_back(self, loaded: LoadedPolicy, batch: Batch, exc: Exception) -> bool:
        """Has the last version that answered try one request; goes on with it where it can: then the new one is bad.

        Where it fails as well, the request is bad, and says nothing of the new version.
        """
        proven = self._proven
        if proven is None or proven.version == loaded.version:
            return False
        started = time.monotonic()
        [(request, lanes)] = batch
        actions = _attempt(proven.policy, lanes)
        if isinstance(actions, Exception) or not np.isfinite(actions).all():
            return False
        logger.warning(
            "Policy %d failed on its first requests: %s Actors go on with policy %d.",
            loaded.version, exc, proven.version,
        )  # fmt: skip
        if self._loaded is loaded:
            self._loaded = proven
        self.metrics.note_call(len(actions), 1e3 * (time.monotonic() - started))
        self._reply(proven, request, actions, started_s=started)
        return True

    def _refuse(self, batch: Batch, exc: Exception) -> None:
        self.metrics.num_refused += sum(len(lanes) for _, lanes in batch)
        refuse([request for request, _ in batch], exc)

    def _trusted(self, loaded: LoadedPolicy) -> LoadedPolicy:
        """Returns the version in force, unless a newer one came meanwhile: a batch has one version or falls back."""
        proven = self._proven
        return proven if proven is not None and self._loaded is proven else loaded

    def _reply(self, loaded: LoadedPolicy, request: Request, actions: np.ndarray, *, started_s: float) -> None:
        self._proven = loaded
        now = time.monotonic()
        queue_ms, service_ms = 1e3 * (started_s - request.arrived_s), 1e3 * (now - request.arrived_s)
        is_late = request.deadline_s < now
        self.metrics.note_answer(
            request.key, size=len(actions), queue_ms=queue_ms, service_ms=service_ms, is_late=is_late
        )
        timings = {"queue": queue_ms, "model": self.metrics.model_ms, "service": service_ms}
        reply = ActReply(
            policy_version=loaded.version, horizon=actions.shape[1], action_dim=actions.shape[2], timings=timings
        )
        request.reply(reply, np.ascontiguousarray(actions, np.float32))


def _attempt(policy: Policy, lanes: Lanes) -> np.ndarray | Exception:
    """Returns actions or what went wrong, by then without the memory that the failed call held."""
    try:
        return call(policy, lanes)
    except Exception as exc:  # Whatever a model raises must reach the actors, and must not end the thread.
        failure = exc
    forget_frames(failure)
    return failure


def call(policy: Policy, lanes: Lanes) -> np.ndarray:
    """Returns float32 [B, H, A], telling the policy as much as it can be told."""
    if (lanes.image_valid is not None or lanes.unfinished) and isinstance(policy, LanesPolicy):
        return policy.act_on(lanes)
    return policy.act(lanes.images, lanes.state, lanes.prompts)


def _decoded_or_refused(request: Request, spec: RobotSpec) -> Lanes | None:
    try:
        if isinstance(request.observations, Lanes):
            return request.observations
        ahead = None if request.decoding is None else request.decoding.take(spec)
        return decode_lanes(request.observations, spec, request.unfinished) if ahead is None else ahead
    except Exception as exc:  # A mistake of ours in one request must not end the thread that answers all of them.
        if not isinstance(exc, HiorsError | ValueError):
            logger.exception("A request could not be decoded.")
        refuse([request], exc)
        return None


def _not_finite(loaded: LoadedPolicy) -> PolicyError:
    return PolicyError(f"Policy {loaded.version} gave actions that are not finite; the robot must hold.")
