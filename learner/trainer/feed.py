"""Batches, drawn ahead of the updates in a thread of its own, which also follows the growing replay.

The thread looks at the replay before each draw: a sealed or relabelled episode is in the first batch that is drawn
afterwards. The NUM_AHEAD + 1 batches that were drawn before are still learned from; drawing them anew would cost their
pictures once more.

    rank 0:   look, draw -> steps -> assemble its part -> update
                             | one batch ahead, from main thread to main thread
    others:                  +-----> assemble their part -> update

Only rank 0 draws. Were each to draw for itself, ranks that see a new episode or label at different moments would
share a batch that nobody drew.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from learner.algorithms.interfaces import Algorithm
from learner.lifetime import Worker
from learner.replay.batch import Batch
from learner.replay.held_out import HeldOut
from learner.replay.mixture import Mixture
from learner.replay.reader import ReplayDataset
from learner.trainer.ranks import Ranks
from learner.trainer.same_data import EpisodeChain
from serl_launcher.errors import DatasetError

logger = logging.getLogger(__name__)

NUM_AHEAD = 2
"""Batches that wait for an update."""
_PATIENCE_S = 0.2
_LATE_S = 60.0
"""How much later than rank 0 another machine may see an episode."""
_KNOWN = 2
"""Numbers that rank 0 tells beside the steps: how many episodes it has, and their digest."""

Item = TypeVar("Item")


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
        self, mixture: Mixture, replay: ReplayDataset, algorithm: Algorithm, *, ranks: Ranks,
        held_out: HeldOut | None = None,
    ) -> None:  # fmt: skip
        """Prepares the thread; `mixture` draws from `replay`, which grows, and from demonstrations."""
        self._ranks = ranks
        self._to_share: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._shared: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._num_shared = 0
        self._num_taken = 0
        self._held_out = held_out
        self._mixture = mixture
        self._replay = replay
        self._chain = EpisodeChain(replay)
        self._algorithm = algorithm
        self._drawn: queue.Queue[Drawn] = queue.Queue(NUM_AHEAD)
        self._worker = Worker("feed", self._work)
        self._revision = -1
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
        """Returns the next batch; blocks until there is one. Every rank calls it, or none.

        Raises:
            HiorsError: The thread failed.
        """
        while self._ranks.count > 1 and self._num_shared <= self._num_taken + 1:
            self._share_steps()
        drawn = self._wait_for(self._drawn)
        self._num_taken += 1
        self.mixture_state = drawn.mixture_state
        return drawn.batch

    def _share_steps(self) -> None:
        """Tells the other ranks which steps rank 0 drew for a batch; they assemble it during the update before."""
        if self._ranks.is_first:
            self._ranks.share(self._wait_for(self._to_share))
        else:
            self._shared.put(
                self._ranks.share(np.zeros(_KNOWN + len(self._mixture.sources) + self._mixture.batch_size, np.int64))
            )
        self._num_shared += 1

    def _wait_for(self, items: queue.Queue[Item] | queue.SimpleQueue[Item]) -> Item:
        while True:
            self._worker.check()
            try:
                return items.get(timeout=_PATIENCE_S)
            except queue.Empty:
                continue

    def _work(self, stop: threading.Event) -> None:
        draw = self._draw if self._ranks.is_first else self._follow
        drawn: Drawn | None = None
        while not stop.is_set():
            self._refresh()
            if drawn is None:
                drawn = draw(stop)
            if drawn is None:
                continue
            try:
                self._drawn.put(drawn, timeout=_PATIENCE_S)
                drawn = None
            except queue.Full:
                continue

    def _draw(self, stop: threading.Event) -> Drawn | None:
        """Returns the next batch; None, after a while, where there is nothing to draw."""
        if not self.has_batches:
            stop.wait(_PATIENCE_S)
            return None
        steps = self._mixture.draw()
        state = self._mixture.state_dict()
        if self._ranks.count > 1:
            known = self._replay.num_episodes
            told = [known, self._chain.digest(known), *map(len, steps)]
            self._to_share.put(np.concatenate([told, *steps]))
        return Drawn(batch=self._mixture.assemble(steps), mixture_state=state)

    def _follow(self, stop: threading.Event) -> Drawn | None:
        """Returns this rank's part of the next batch that rank 0 drew; None where it drew none for a while."""
        try:
            shared = self._shared.get(timeout=_PATIENCE_S)
        except queue.Empty:
            return None
        (num_episodes, digest), shared = shared[:_KNOWN], shared[_KNOWN:]
        if not self._wait_for_episodes(int(num_episodes), stop):
            return None
        if self._chain.digest(int(num_episodes)) != digest:
            raise DatasetError(
                f"Expected the first {num_episodes} episodes of {self._replay.root} to be those of rank 0's replay; "
                "they are others, or in another order. Delete the replica's run directory and let it be fed anew."
            )
        num_sources = len(self._mixture.sources)
        steps = np.split(shared[num_sources:], np.cumsum(shared[: num_sources - 1]))
        return Drawn(batch=self._mixture.assemble(steps), mixture_state=self.mixture_state)

    def _wait_for_episodes(self, count: int, stop: threading.Event) -> bool:
        """Returns True once this machine has as many episodes as rank 0; False where `stop` was set."""
        deadline = time.monotonic() + _LATE_S
        while self._replay.num_episodes < count:
            if stop.wait(_PATIENCE_S):
                return False
            if time.monotonic() > deadline:
                raise DatasetError(
                    f"Rank 0 learns from {count} episodes, but {self._replay.root} has {self._replay.num_episodes} on "
                    f"this machine after {_LATE_S:g} s. Is its replica fed (`python -m learner.replica`)?"
                )
            self._refresh()
        return True

    def _refresh(self) -> None:
        """Follows the replay; costs two stats while it did not change."""
        self._replay.refresh()
        if self._revision == self._replay.revision:
            return
        self._revision = self._replay.revision
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
