"""Batches, drawn ahead of the updates in a thread of its own, which also follows the growing replay."""

import logging
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np

from learner.algorithms.interfaces import Algorithm
from learner.lifetime import Worker
from learner.replay.batch import Batch
from learner.replay.held_out import HeldOut
from learner.replay.mixture import Mixture
from learner.replay.reader import ReplayDataset

logger = logging.getLogger(__name__)

NUM_AHEAD = 2
"""Batches that wait for an update."""
REFRESH_S = 0.5
_PATIENCE_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineCounts:
    """What the replay holds, as of the last look at it."""

    num_steps: int = 0
    num_episodes: int = 0
    num_accepted_steps: int = 0
    """Steps that can be drawn."""
    num_accepted_episodes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A batch, and the mixture's state right after it was drawn: what a checkpoint must remember."""

    batch: Batch
    mixture_state: dict[str, object]


class DataFeed:
    """Draws batches from demonstrations and replay; only its thread touches the datasets."""

    def __init__(
        self, mixture: Mixture, replay: ReplayDataset, algorithm: Algorithm, *, held_out: HeldOut | None = None
    ) -> None:
        """Prepares the thread; `mixture` draws from `replay`, which grows, and from demonstrations."""
        self._held_out = held_out
        self._mixture = mixture
        self._replay = replay
        self._algorithm = algorithm
        self._drawn: queue.Queue[Drawn] = queue.Queue(NUM_AHEAD)
        self._worker = Worker("feed", self._work)
        self._refresh_at = 0.0
        self.counts = OnlineCounts()
        self.held_out: Batch | None = None
        """Samples to measure, not to learn from; None where there are none (yet)."""
        self.has_batches = False
        """Whether there is something to draw."""
        self.mixture_state = mixture.state_dict()
        """State of the mixture behind the last batch that `next` returned."""

    def start(self) -> None:
        """Looks at the data once, then starts drawing."""
        self._refresh()
        self._worker.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._worker.stop()

    def check(self) -> None:
        """Raises HiorsError where the thread failed, for instance on a damaged dataset."""
        self._worker.check()

    def next(self) -> Batch:
        """Returns the next batch; blocks until there is one. Raises HiorsError where the thread failed."""
        while True:
            self._worker.check()
            try:
                drawn = self._drawn.get(timeout=_PATIENCE_S)
            except queue.Empty:
                continue
            self.mixture_state = drawn.mixture_state
            return drawn.batch

    def _work(self, stop: threading.Event) -> None:
        drawn: Drawn | None = None
        while not stop.is_set():
            if time.monotonic() >= self._refresh_at:
                self._refresh()
            if drawn is None and self.has_batches:
                drawn = Drawn(batch=self._mixture.sample(), mixture_state=self._mixture.state_dict())
            if drawn is None:
                stop.wait(_PATIENCE_S)
                continue
            try:
                self._drawn.put(drawn, timeout=_PATIENCE_S)
                drawn = None
            except queue.Full:
                continue

    def _refresh(self) -> None:
        """Follows the replay; costs next to nothing while it did not change."""
        self._refresh_at = time.monotonic() + REFRESH_S
        is_first = self.counts.num_steps == 0
        if not self._replay.refresh() and not is_first:
            return
        held_out = None if self._held_out is None else self._held_out.refreshed()
        self.held_out = self.held_out if held_out is None else held_out
        accepted = self._algorithm.accepted(self._replay)
        self.counts = OnlineCounts(
            num_steps=self._replay.num_steps,
            num_episodes=self._replay.num_episodes,
            num_accepted_steps=int(np.count_nonzero(self._algorithm.online_weights(self._replay))),
            num_accepted_episodes=int(np.count_nonzero(accepted)),
        )
        self.has_batches = not self._mixture.is_empty
