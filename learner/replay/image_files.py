"""Encoded images, read in place from memory-mapped parquet files."""

import logging
import mmap
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learner.replay.pages import NotPlainError, locate_values
from serl_launcher.errors import DatasetError

logger = logging.getLogger(__name__)

MAX_MAPPED_FILES = 256
"""Files that stay mapped; each holds a file descriptor, of which a process usually has 1024."""
MAX_COPIED_BYTES = 512 * 1024**2
"""Images in memory, of files that compress them (LeRobot's own): row groups, the most recently used ones."""


@dataclass(slots=True)
class _Located:
    """Where the images of one file lie; valid for the file with this identity."""

    identity: tuple[int, int, int]
    spans: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Column to offset and length of each row's image."""
    packed: set[str] = field(default_factory=set)
    """Columns that the file compresses, so that their row groups are copied."""
    metadata: pq.FileMetaData | None = None
    """Footer, where there are such columns."""
    group_starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """First row of each row group, then the number of rows."""


class ImageFiles:
    """Returns encoded images by file, column and row; keeps the most recently used files mapped. One thread only."""

    def __init__(self, max_mapped: int = MAX_MAPPED_FILES, max_copied_bytes: int = MAX_COPIED_BYTES) -> None:
        """Maps at most `max_mapped` files at a time, and copies at most `max_copied_bytes` of compressed images."""
        self._max_mapped = max_mapped
        self._max_copied_bytes = max_copied_bytes
        self._copies: OrderedDict[tuple[str, str, int], pa.Array] = OrderedDict()
        self._copied_bytes = 0
        self._mapped: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._located: dict[str, _Located] = {}

    def encoded(self, path: str, column: str, row: int) -> memoryview:
        """Returns the JPEG or PNG bytes of one row, a view into the file.

        Raises:
            DatasetError: The file is gone or has no such column.
        """
        content = self._map(path)
        located = self._located[path]
        if column not in located.spans and column not in located.packed:
            self._locate(path, content, located, column)
        if column in located.packed:
            return self._unpacked(path, content, located, column, row)
        offsets, lengths = located.spans[column]
        start = int(offsets[row])
        return memoryview(content)[start : start + int(lengths[row])]

    def forget(self, path: str) -> None:
        """Drops what is known of a file that was replaced."""
        self._mapped.pop(path, None)
        self._located.pop(path, None)
        for key in [key for key in self._copies if key[0] == path]:
            self._copied_bytes -= self._copies.pop(key).nbytes

    def _map(self, path: str) -> mmap.mmap:
        content = self._mapped.get(path)
        if content is not None:
            self._mapped.move_to_end(path)
            return content
        try:
            with Path(path).open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                status = os.fstat(file.fileno())
        except (OSError, ValueError) as exc:
            raise DatasetError(f"Expected images in {path}: {exc}. Run tools.replay verify on the dataset.") from exc
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        if path not in self._located or self._located[path].identity != identity:
            self.forget(path)
            self._located[path] = _Located(identity)
        self._mapped[path] = content
        while len(self._mapped) > self._max_mapped:
            self._mapped.popitem(last=False)
        return content

    def _locate(self, path: str, content: mmap.mmap, located: _Located, column: str) -> None:
        try:
            with pq.ParquetFile(pa.BufferReader(pa.py_buffer(content)), metadata=located.metadata) as file:
                try:
                    located.spans[column] = locate_values(content, file.metadata, f"{column}.bytes")
                except NotPlainError as exc:
                    logger.debug("Images of %s are unpacked into memory: %s", path, exc)
                    counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                    located.metadata = file.metadata
                    located.group_starts = np.cumsum([0, *counts])
                    located.packed.add(column)
        except (pa.ArrowException, OSError) as exc:
            raise DatasetError(f"Expected images in column {column!r} of {path}: {exc}.") from exc

    def _unpacked(self, path: str, content: mmap.mmap, located: _Located, column: str, row: int) -> memoryview:
        """Returns an image of a compressed column; the images of its row group stay in memory for a while."""
        group = int(np.searchsorted(located.group_starts, row, side="right")) - 1
        images = self._copies.get((path, column, group))
        if images is None:
            try:
                with pq.ParquetFile(pa.BufferReader(pa.py_buffer(content)), metadata=located.metadata) as file:
                    table = file.read_row_group(group, columns=[f"{column}.bytes"])
                images = pa.concat_arrays([chunk.field("bytes") for chunk in table[column].chunks])
            except (pa.ArrowException, KeyError, OSError) as exc:
                raise DatasetError(f"Expected images in column {column!r} of {path}: {exc}.") from exc
            self._copies[path, column, group] = images
            self._copied_bytes += images.nbytes
            while self._copied_bytes > self._max_copied_bytes and len(self._copies) > 1:
                self._copied_bytes -= self._copies.popitem(last=False)[1].nbytes
        self._copies.move_to_end((path, column, group))
        image = images[row - int(located.group_starts[group])].as_buffer()
        if image is None:
            raise DatasetError(f"Expected an image in column {column!r} of {path}, row {row}; it is stored elsewhere.")
        return memoryview(image).cast("B")
