"""Where the files of one run lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from serl_launcher.config.root import RunConfig


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths below `output_dir/unique_identifier`; nothing is created by asking for one."""

    root: Path
    replay: Path
    """LeRobot v3 dataset: the replay buffer itself."""

    @classmethod
    def of(cls, config: RunConfig) -> "RunDirectory":
        """Returns the paths of a run; the replay goes below HF_LEROBOT_HOME where that is set."""
        root = Path(config.output_dir) / config.unique_identifier
        lerobot_home = os.environ.get("HF_LEROBOT_HOME")
        below = Path(lerobot_home) / config.environment.name / config.unique_identifier if lerobot_home else root
        return cls(root.absolute(), (below / config.dataset.replay_name).absolute())

    @property
    def journal(self) -> Path:
        """LMDB journal of the learner server."""
        return self.root / "journal"

    @property
    def policies(self) -> Path:
        """Published policies, one directory per version."""
        return self.root / "policies"

    @property
    def checkpoints(self) -> Path:
        """Training checkpoints, one directory per number of updates."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """JSON-lines files, one per process."""
        return self.root / "metrics"

    @property
    def logs(self) -> Path:
        """Log files, one per process."""
        return self.root / "logs"

    def status(self, process: str) -> Path:
        """One small JSON file per process, replaced atomically about once a second."""
        return self.root / "status" / f"{process}.json"

    def spool(self, actor_id: str) -> Path:
        """LMDB spool of one actor."""
        return self.root / "spool" / actor_id
