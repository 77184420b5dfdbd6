"""Small JSON files in which processes tell how they are; replaced atomically about once a second."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from serl_launcher.files import write_atomic

logger = logging.getLogger(__name__)

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"


def write_status(path: Path, values: Mapping[str, JSON]) -> None:
    """Replaces the status file; a reader sees the old or the new one. Unsynced: it tells of the present only.

    A disk that is full keeps the old one: no process ends because it cannot tell how it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(values).encode(), sync=False)
    except OSError as exc:
        logger.debug("The status file %s cannot be written: %s", path, exc)


def read_status(path: Path) -> dict[str, JSON] | None:
    """Returns the last status, None where there is none yet or it cannot be read."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
