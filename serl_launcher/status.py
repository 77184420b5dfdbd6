"""Small JSON files in which processes tell how they are; replaced atomically about once a second."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from serl_launcher.files import write_atomic

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"


def write_status(path: Path, values: Mapping[str, JSON]) -> None:
    """Replaces the status file; a reader sees the old or the new one. Unsynced: it tells of the present only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(values).encode(), sync=False)


def read_status(path: Path) -> dict[str, JSON] | None:
    """Returns the last status, None where there is none yet or it cannot be read."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
