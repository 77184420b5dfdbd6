"""Keeps what was asked and answered, one file per request: arrays alone, no pickle."""

from pathlib import Path
from typing import Any

import numpy as np

from serl_launcher.transforms.structure import flatten


class Recording:
    """Writes `step_<n>.npz` with flat keys `inputs/...` and `outputs/...`; goes on after what is already there."""

    def __init__(self, directory: Path) -> None:
        """Uses `directory`, which is made."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        numbers = [int(path.stem.removeprefix("step_")) for path in directory.glob("step_*.npz")]
        self._next = max(numbers, default=-1) + 1

    def take_number(self) -> int:
        """Returns the number of the next record; call it from one thread."""
        number, self._next = self._next, self._next + 1
        return number

    def write(self, number: int, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
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


def read_record(path: Path) -> dict[str, np.ndarray]:
    """Returns the flat arrays of one record."""
    with np.load(path, allow_pickle=False) as record:
        return {key: record[key] for key in record.files}
