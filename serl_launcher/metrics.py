"""The one place where metrics are written: JSON lines always, other sinks by `logging.logger`."""

import json
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from serl_launcher.config.training import LoggingConfig
from serl_launcher.errors import ConfigError
from serl_launcher.files import write_atomic

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """Something beside the JSON-lines file that takes rows of metrics."""

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Takes one row."""
        ...

    def close(self) -> None:
        """Flushes and ends."""
        ...


class MetricSink:
    """Writes rows of named numbers.

    Example:
        sink = MetricSink(run.metrics / "trainer.jsonl", config.logging, run_name="demo")
        sink.write({"loss/flow": 0.12, "replay/steps": 4000}, step=50)
    """

    def __init__(self, path: Path, config: LoggingConfig, *, run_name: str) -> None:
        """Appends to `path`; a row is one object with `step`, `time` (Unix seconds) and the metrics.

        After a resume a step may occur twice: the later row counts.

        Raises:
            ConfigError: wandb was chosen, but has no key.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _build_writer(config, directory=path.parent, run_name=run_name)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Writes one row; `step` is the number of updates done."""
        row = {"step": step, "time": round(time.time(), 3), **metrics}
        self._file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            self._writer.write(metrics, step=step)

    def close(self) -> None:
        """Ends every sink. A closed sink takes no more rows."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a metrics file in order; a last line that a crash cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            logger.debug("A row of %s is cut off and left out.", path)
    return rows


def _build_writer(config: LoggingConfig, *, directory: Path, run_name: str) -> Writer | None:
    if config.logger == "wandb":
        return _WandbWriter(config, directory=directory, run_name=run_name)
    if config.logger == "tensorboard":
        return _TensorboardWriter(directory / "tensorboard")
    if config.logger == "debug":
        return _TerminalWriter()
    return None


class _TerminalWriter:
    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logger.info("Update %d: %s", step, values)

    def close(self) -> None:
        """Has nothing to end."""


class _TensorboardWriter:
    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # Optional, and imports torch.

        self._writer = SummaryWriter(str(directory))

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step=step)

    def close(self) -> None:
        self._writer.close()


class _WandbWriter:
    def __init__(self, config: LoggingConfig, *, directory: Path, run_name: str) -> None:
        import wandb  # Optional.

        try:
            self._run = wandb.init(
                project=config.project, entity=config.entity, name=run_name, id=_wandb_run_id(directory),
                resume="allow", dir=str(directory),
            )  # fmt: skip
        except wandb.Error as exc:
            raise ConfigError(
                f"logging.logger=wandb: {exc} Run `wandb login` once on this machine, set WANDB_MODE=offline, "
                "or choose logging.logger=offline."
            ) from exc

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_run_id(directory: Path) -> str:
    """Returns the id under which a run is continued; runs of one name in several places stay apart."""
    path = directory / "wandb_run_id"
    if not path.exists():
        write_atomic(path, secrets.token_hex(4).encode())
    return path.read_text(encoding="utf-8").strip()
