"""Start states of an evaluation, kept so that the next one, of another checkpoint, begins from the same."""

from pathlib import Path

import msgspec
import numpy as np

from serl_launcher.errors import ConfigError
from serl_launcher.files import write_atomic
from serl_launcher.types import Observation


class StartState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one evaluated episode began.

    Example:
        StartState(seed=1000000, prompt="put the red cube on the green plate", state=[0.0, 1.2])
    """

    seed: int
    prompt: str
    state: list[float]
    """Measured, float [S]."""

    @classmethod
    def of(cls, seed: int, observation: Observation) -> "StartState":
        """Returns the start state that was observed."""
        return cls(seed=seed, prompt=observation.prompt, state=[float(value) for value in observation.state])

    def difference(self, other: "StartState") -> float:
        """Returns the largest difference of the measured states; infinity where prompt or width differ."""
        if self.prompt != other.prompt or len(self.state) != len(other.state):
            return float("inf")
        return float(np.abs(np.subtract(self.state, other.state)).max(initial=0.0))


def write_starts(starts: list[StartState], path: Path, *, sync: bool = True) -> None:
    """Writes the start states of an evaluation, in the order of its episodes; with `sync` also past a power cut."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(starts), indent=1) + b"\n", sync=sync)


def read_starts(path: Path) -> list[StartState]:
    """Returns the start states of an earlier evaluation; raises ConfigError where the file holds none."""
    try:
        starts = msgspec.json.decode(path.read_bytes(), type=list[StartState])
    except (OSError, msgspec.MsgspecError) as exc:
        raise ConfigError(f"Expected starts.json of an evaluation at {path}: {exc}.") from exc
    if not starts:
        raise ConfigError(f"Expected start states in {path}, it holds none.")
    return starts
