"""What one episode tells about latency: ticks without an action, and how much the commands jump where chunks join."""

from collections.abc import Sequence

import msgspec
import numpy as np

from actor.evaluation_report import wilson_interval
from actor.plan import ChunkNote
from serl_launcher.specs import RobotSpec


class Episode(msgspec.Struct, kw_only=True):
    """One episode under latency."""

    seed: int
    is_success: bool
    num_ticks: int
    num_held: int
    """Ticks at which no action was there."""
    position_jumps: list[float]
    """Radians, largest over the joints: the new plan for the tick at which a chunk joins, less the old plan for it."""
    velocity_jumps: list[float]
    """Radians per second, largest over the joints: change of the commanded velocity where a chunk joins."""
    velocity_changes: list[float]
    """The same at all other ticks: what the motion itself needs."""


class Cell(msgspec.Struct, kw_only=True):
    """All episodes of one way of joining chunks at one range of latencies."""

    arm: str
    """How chunks joined."""
    low_ms: float
    high_ms: float
    episodes: list[Episode]

    @property
    def successes(self) -> tuple[int, int]:
        """Successful episodes, and all."""
        return sum(each.is_success for each in self.episodes), len(self.episodes)

    @property
    def wilson(self) -> tuple[float, float]:
        """The 95 % interval of the success rate."""
        return wilson_interval(*self.successes)

    @property
    def num_held(self) -> int:
        """Ticks without an action."""
        return sum(each.num_held for each in self.episodes)

    @property
    def num_ticks(self) -> int:
        """Ticks altogether."""
        return sum(each.num_ticks for each in self.episodes)

    def percentile(self, name: str, percent: float) -> float:
        """Returns a percentile of `position_jumps`, `velocity_jumps` or `velocity_changes`; NaN without any."""
        values = [value for each in self.episodes for value in getattr(each, name)]
        return float(np.percentile(values, percent)) if values else float("nan")


def joints_of(spec: RobotSpec) -> np.ndarray:
    """Returns which action dimensions are joints, bool [A]: grippers open and close at once, and should."""
    return np.array(["gripper" not in name for name in spec.action_names])


def position_jumps(notes: Sequence[ChunkNote], joints: np.ndarray) -> list[float]:
    """Returns the jump of each chunk that joined another."""
    return [float(np.abs(note.difference[joints]).max()) for note in notes if note.difference is not None]


def velocity_jumps(
    commands: Sequence[np.ndarray], notes: Sequence[ChunkNote], joints: np.ndarray, *, tick_s: float
) -> tuple[list[float], list[float]]:
    """Returns the changes of the commanded velocity, in radians per second: where chunks join, and elsewhere."""
    if len(commands) < 3:
        return [], []
    # Change number i is at tick i + 2: the step to that tick, less the step before.
    changes = np.abs(np.diff(np.stack(commands)[:, joints], n=2, axis=0)).max(axis=1) / tick_s
    seams = {note.tick + note.delay_ticks for note in notes if note.difference is not None}
    is_seam = np.array([number + 2 in seams for number in range(len(changes))])
    return changes[is_seam].tolist(), changes[~is_seam].tolist()
