"""Durations of every tick and every chunk, one JSON line per episode: what happened when a robot was not smooth.

{"episode": 12, "tick_ms": [...], "decide_ms": [...], "step_ms": [...], "chunk_index": [...],
"chunks": [{"tick": 8, "delay_ticks": 2, "jump": 0.01, "round_trip": 61.2, "queue": 1.1, "model": 55.0}, ...]}
"""

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from actor.plan import ChunkNote

logger = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Beyond it the file is renamed to `.old`, which is replaced."""
HELD = -2
"""`chunk_index` of a tick at which nobody had a command."""


@dataclass(kw_only=True, slots=True)
class TimingLog:
    """Collects one episode at a time."""

    path: Path
    _decide_ms: list[float] = field(default_factory=list)
    _step_ms: list[float] = field(default_factory=list)
    _began_ms: list[float] = field(default_factory=list)
    _chunk_index: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """Starts an episode."""
        for column in (self._decide_ms, self._step_ms, self._began_ms, self._chunk_index):
            column.clear()

    def note_tick(self, began_s: float, decided_s: float, ended_s: float, chunk_index: int) -> None:
        """Notes one tick.

        Args:
            began_s: Monotonic time at which the tick began.
            decided_s: When it was known what to do.
            ended_s: When the robot was commanded and read again.
            chunk_index: Which action of its chunk was taken; -1: a person's; HELD: none.
        """
        self._began_ms.append(1e3 * began_s)
        self._decide_ms.append(round(1e3 * (decided_s - began_s), 2))
        self._step_ms.append(round(1e3 * (ended_s - decided_s), 2))
        self._chunk_index.append(chunk_index)

    def end(self, number: int, chunks: Iterable[ChunkNote] = ()) -> None:
        """Writes the episode as one line; a disk that refuses costs only this line."""
        tick_ms = [round(after - before, 2) for before, after in zip(self._began_ms, self._began_ms[1:], strict=False)]
        row = {
            "episode": number,
            "tick_ms": tick_ms,
            "decide_ms": self._decide_ms,
            "step_ms": self._step_ms,
            "chunk_index": self._chunk_index,
            "chunks": [_plain(note) for note in chunks],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
                self.path.replace(self.path.with_suffix(".old"))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as exc:
            logger.warning("The timings of episode %d cannot be written to %s: %s", number, self.path, exc)


def _plain(note: ChunkNote) -> dict[str, float | None]:
    jump = None if math.isnan(note.jump) else round(note.jump, 5)
    timings = {name: round(value, 2) for name, value in note.timings_ms.items()}
    return {"tick": note.tick, "delay_ticks": note.delay_ticks, "jump": jump, **timings}
