"""Follows the published policies: loads, checks and warms up the newest, then hands it to inference."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from learner.lifetime import Worker
from learner.server.failures import forget_frames, is_out_of_memory, release_device_memory
from learner.server.inference import InferenceService, call
from learner.server.lanes import Lanes
from learner.server.requests import LanesPolicy, Policy
from serl_launcher import publication
from serl_launcher.errors import HiorsError, PolicyError
from serl_launcher.images import stack_images
from serl_launcher.publication import Publication
from serl_launcher.types import Unfinished

logger = logging.getLogger(__name__)

PERIOD_S = 0.2
_STORY_PERIOD_S = 60.0


class PolicyWatcher:
    """A thread beside inference, so that loading delays no answer."""

    def __init__(self, publications: Path, load: Callable[[Path], Policy], inference: InferenceService) -> None:
        """Looks below `publications`; `load` makes a policy of a published directory."""
        self._publications = publications
        self._load = load
        self._inference = inference
        self._worker = Worker("policy-watcher", self._work)
        self._tried: Publication | None = None
        self._told_s = -_STORY_PERIOD_S

    def start(self) -> None:
        """Starts the thread."""
        self._worker.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._worker.stop()

    def check(self) -> None:
        """Raises HiorsError where the thread failed."""
        self._worker.check()

    def look(self) -> None:
        """Takes over the newest policy if it is new; keeps the old one, with a warning, where the new one is bad."""
        newest = self._newest()
        if newest is None or newest == self._tried:
            return
        self._tried = newest  # Once only: what is bad stays bad.
        started = time.monotonic()
        try:
            publication.verify(newest.path)
            policy = self._load(newest.path)
            warm_up(policy, self._inference.recent_calls.newest())
        except (HiorsError, OSError, RuntimeError, ValueError, MemoryError) as exc:
            if self._newest() == newest:  # Otherwise it was deleted while it was read: newer ones are there.
                logger.warning("Policy %d is not taken over, actors keep the one before: %s", newest.version, exc)
            return
        self._inference.swap(policy, newest.version)
        self._tell(newest.version, 1e3 * (time.monotonic() - started))

    def _newest(self) -> Publication | None:
        try:
            return publication.latest(self._publications)
        except (HiorsError, OSError) as exc:
            logger.debug("The publications cannot be read just now: %s", exc)
            return None

    def _tell(self, version: int, duration_ms: float) -> None:
        is_story = time.monotonic() - self._told_s >= _STORY_PERIOD_S
        logger.log(logging.INFO if is_story else logging.DEBUG, "Policy %d loaded in %.0f ms.", version, duration_ms)
        if is_story:
            self._told_s = time.monotonic()

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.look()
            stop.wait(PERIOD_S)


def warm_up(policy: Policy, recent: Sequence[Lanes] = ()) -> None:
    """Lets a policy act, so that no robot waits for memory, kernels, recordings or compilations.

    Args:
        policy: It acts on nothing, then on what it has just said itself, where it can continue chunks.
        recent: Calls of the policy before; the robots will make the same ones.

    Raises:
        PolicyError: Its actions are not finite.
    """
    spec = policy.spec
    images = stack_images([np.zeros(camera.shape, np.uint8) for camera in spec.cameras])[None]
    nothing = Lanes(images=images, state=np.zeros((1, spec.state_dim), np.float32), prompts=["warm up"])
    [chunk] = _finite_actions(policy, nothing)
    if isinstance(policy, LanesPolicy):
        _finite_actions(policy, replace(nothing, unfinished=(Unfinished(actions=chunk, delay_ticks=1),)))
    for lanes in recent:
        if not _has_room_for(policy, lanes):
            break


def _has_room_for(policy: Policy, lanes: Lanes) -> bool:
    """Has a policy act; returns whether the memory was enough: beside the policy in force it may not be."""
    try:
        _finite_actions(policy, lanes)
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
        logger.info("No memory to warm up batches of %d beside the policy in force.", len(lanes))
        forget_frames(exc)
    else:
        return True
    release_device_memory()
    return False


def _finite_actions(policy: Policy, lanes: Lanes) -> np.ndarray:
    actions = call(policy, lanes)
    if not np.isfinite(actions).all():
        raise PolicyError("Its actions on a black picture are not finite.")
    return actions
