"""Whether a run may be started, continued or refused: the meaning of `resume`."""

from collections.abc import Sequence
from pathlib import Path

from serl_launcher.config import RunConfig
from serl_launcher.errors import ConfigError
from serl_launcher.run_directory import RunDirectory


def check_resume(config: RunConfig, evidence: Sequence[Path]) -> bool:
    """Returns whether the run exists already, that is, whether any path of `evidence` does.

    What actors wrote (their spool) is no evidence, because they may be started first.

    Raises:
        ConfigError: `resume=never` and the run exists, or `resume=must` and it does not.
    """
    root = RunDirectory.of(config).root
    exists = any(path.exists() for path in evidence)
    if exists and config.resume == "never":
        raise ConfigError(
            f"resume=never, but {root} holds a run already. Choose another unique_identifier, or resume=auto to "
            "continue it. Nothing was changed."
        )
    if not exists and config.resume == "must":
        raise ConfigError(
            f"resume=must, but {root} holds no run. Check output_dir and unique_identifier, or use resume=auto."
        )
    return exists
