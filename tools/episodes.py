"""What happened in a run, episode by episode, read from the replay dataset itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from serl_launcher.datasets.layout import read_table
from serl_launcher.types import Outcome

COLUMNS = ("episode_index", "length", "outcome", "num_intervention_steps", "started_wall_time_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRow:
    """One recorded episode.

    Example:
        EpisodeRow(episode_index=3, length=74, outcome="success", num_intervention_steps=12, started_wall_time_s=1.7e9)
    """

    episode_index: int
    length: int
    outcome: str
    num_intervention_steps: int
    started_wall_time_s: float

    @property
    def is_success(self) -> bool:
        """Whether its newest label is success, with or without help."""
        return self.outcome == Outcome.SUCCESS

    @property
    def is_unaided_success(self) -> bool:
        """Whether the policy succeeded alone."""
        return self.is_success and self.num_intervention_steps == 0

    @property
    def is_judged(self) -> bool:
        """Whether somebody said success or failure."""
        return self.outcome in (Outcome.SUCCESS, Outcome.FAILURE)


@dataclass(slots=True)
class EpisodeTable:
    """The episodes of a dataset that may still be growing; reads each file once, again when it was relabelled."""

    root: Path
    _rows: dict[Path, tuple[int, list[EpisodeRow]]] = field(default_factory=dict)

    def read(self) -> list[EpisodeRow]:
        """Returns the judged episodes in the order in which they were recorded; none where there is no dataset."""
        for path in sorted((self.root / "meta" / "episodes").glob("*/*.parquet")):
            modified = path.stat().st_mtime_ns
            if path not in self._rows or self._rows[path][0] != modified:
                self._rows[path] = (modified, _read_file(path))
        rows = [row for _, part in self._rows.values() for row in part if row.is_judged]
        return sorted(rows, key=lambda row: row.episode_index)


def share(flags: Sequence[bool]) -> float:
    """Returns the share of true flags; 0 where there are none."""
    return sum(flags) / max(len(flags), 1)


def rolling_share(flags: Sequence[bool], window: int) -> list[float]:
    """Returns for each episode the share of true flags among the last `window` up to it."""
    return [share(flags[max(0, end - window) : end]) for end in range(1, len(flags) + 1)]


def _read_file(path: Path) -> list[EpisodeRow]:
    try:
        table = read_table(path, COLUMNS)
    except (FileNotFoundError, pa.ArrowInvalid):  # Being replaced by a relabelled one, or no episode of ours.
        return []
    return [EpisodeRow(**row) for row in table.to_pylist()]
