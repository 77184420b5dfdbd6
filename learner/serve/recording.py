"""Keeps what was asked and answered, one file per request: arrays alone, no pickle.

Files are written by a thread of their own: no robot waits for the disk, and a disk that refuses costs only records.
"""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from serl_launcher.transforms.structure import flatten

logger = logging.getLogger(__name__)

MAX_WAITING = 32
"""Records that may wait for the disk; more are left out, so that a slow one fills no memory."""


class Recording:
    """Writes `step_<n>.npz` with flat keys `inputs/...` and `outputs/...`; goes on after what is already there."""

    def __init__(self, directory: Path) -> None:
        """Uses `directory`, which is made."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        numbers = [int(path.stem.removeprefix("step_")) for path in directory.glob("step_*.npz")]
        self._next = max(numbers, default=-1) + 1
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._room = threading.BoundedSemaphore(MAX_WAITING)
        self.num_lost = 0
        """Requests without a record."""

    def keep(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Has one request recorded; returns at once. Call it from one thread."""
        if not self._room.acquire(blocking=False):
            self._lose(f"{MAX_WAITING} records wait for the disk already.")
            return
        number, self._next = self._next, self._next + 1
        self._writing.submit(self._write, number, inputs, outputs)

    def close(self) -> None:
        """Returns when everything is written."""
        self._writing.shutdown()

    def _write(self, number: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        try:
            self._write_file(number, inputs, outputs)
        except Exception as exc:  # Whatever a robot sends: that it cannot be recorded is no reason to stop.
            self._lose(f"{type(exc).__name__}: {exc}")
        finally:
            self._room.release()

    def _write_file(self, number: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Writes one record; it appears complete or not at all."""
        arrays = {key: np.asarray(value) for key, value in flatten({"inputs": inputs, "outputs": outputs}).items()}
        plain = {
            key: array if array.dtype.kind not in "OV" else np.asarray(str(array)) for key, array in arrays.items()
        }
        path = self._directory / f"step_{number}.npz"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **plain)  # pyright: ignore[reportArgumentType]
        temporary.replace(path)

    def _lose(self, reason: str) -> None:
        if not self.num_lost:
            logger.warning("Not every request is recorded in %s, robots are served on: %s", self._directory, reason)
        self.num_lost += 1


def read_record(path: Path) -> dict[str, np.ndarray]:
    """Returns the flat arrays of one record."""
    with np.load(path, allow_pickle=False) as record:
        return {key: record[key] for key in record.files}
