"""What is compared: ways of joining chunks, each with the schedule by which guidance fades."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from actor.realtime_plan import CHUNKINGS
from serl_launcher.errors import ConfigError
from serl_launcher.networks.chunking import SCHEDULES

CONFIG_FILE = "config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way of joining chunks.

    Example:
        Arm(name="rtc:zeros", chunking="rtc", schedule="zeros")
    """

    name: str
    chunking: str
    """Of `actor.chunking`."""
    schedule: str | None = None
    """Of `policy.acting.chunking_schedule`; None: that of the checkpoint."""

    @classmethod
    def of(cls, name: str) -> "Arm":
        """Returns the arm of a name such as `switch`, `rtc` or `rtc:zeros`; raises ConfigError for another."""
        chunking, _, schedule = name.partition(":")
        if chunking not in CHUNKINGS or schedule not in ("", *SCHEDULES):
            raise ConfigError(f"Expected one of {CHUNKINGS}, with :schedule of {SCHEDULES} or without, got {name!r}.")
        return cls(name=name, chunking=chunking, schedule=schedule or None)

    def policy(self, directory: Path, root: Path) -> Path:
        """Returns a directory with the policy for this arm: `directory`, or a copy below `root` with the schedule."""
        if self.schedule is None:
            return directory
        copy = root / self.schedule
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        config = json.loads((copy / CONFIG_FILE).read_text())
        config["acting"]["chunking_schedule"] = self.schedule
        (copy / CONFIG_FILE).write_text(json.dumps(config, indent=2))
        return copy
