"""Tells the person, the status file and the learner how far the actor is."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from actor.progress import EpisodeSummary, Progress, Throttle, describe
from serl_launcher.status import write_status

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What is reported about the network; `serl_launcher.transport.client.LearnerClient` is one."""

    @property
    def is_connected(self) -> bool: ...

    def send_stats(self, values: dict[str, float | int | str]) -> None:
        """Sends values to the learner; does not wait."""
        ...


@dataclass(kw_only=True, slots=True)
class Reporter:
    """Reports about once a second, and after each episode."""

    progress: Progress
    connection: Connection
    status_path: Path
    num_unsent: Callable[[], int]
    """Events that the learner has not confirmed yet."""
    num_late_ticks: Callable[[], int]
    """Ticks that missed their deadline."""
    figures: Callable[[], dict[str, float]] = dict
    """More numbers, e.g. latencies."""
    _log_due: Throttle = field(default_factory=lambda: Throttle(30.0))
    _status_due: Throttle = field(default_factory=lambda: Throttle(1.0))

    def after_episode(self, episode: EpisodeSummary) -> None:
        """Tells the learner and, at most every half minute, the person."""
        self.connection.send_stats(self._values())
        logger.debug("Episode %d: %s after %d steps.", episode.number, episode.outcome, episode.num_steps)
        if self._log_due.is_due():
            logger.info(describe(self.progress))
        self.on_tick()

    def on_tick(self) -> None:
        """Tells the learner and the status file where they were told more than a second ago."""
        if self._status_due.is_due():
            self.connection.send_stats(self._values())
            self.write()

    def write(self) -> None:
        """Writes the status file now."""
        values = {"pid": os.getpid(), "time": time.time(), "is_connected": self.connection.is_connected}
        write_status(self.status_path, {**values, **self._values()})

    def _values(self) -> dict[str, float | int | str]:
        loop = {"num_late_ticks": self.num_late_ticks(), "num_unsent": self.num_unsent()}
        return {**self.progress.values(), **self.figures(), **loop}


def figures_of_all(lanes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the figures of several lanes as one: counts are added, of everything else the worst is told."""
    names = dict.fromkeys(name for figures in lanes for name in figures)
    told = {name: [figures[name] for figures in lanes if name in figures] for name in names}
    return {name: sum(values) if name.startswith("num_") else max(values) for name, values in told.items()}
