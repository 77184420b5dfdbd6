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


@dataclass(slots=True)
class _Located:
    """Where the images of one file lie; valid for the file with this identity."""

    identity: tuple[int, int, int]
    spans: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Column to offset and length of each row's image."""
    copies: dict[str, pa.Array] = field(default_factory=dict)
    """Column to images in memory, where a file compresses them."""
    metadata: pq.FileMetaData | None = None


class ImageFiles:
    """Returns encoded images by file, column and row; keeps the most recently used files mapped. One thread only."""

    def __init__(self, max_mapped: int = MAX_MAPPED_FILES) -> None:
        """Maps at most `max_mapped` files at a time."""
        self._max_mapped = max_mapped
        self._mapped: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._located: dict[str, _Located] = {}

    def encoded(self, path: str, column: str, row: int) -> memoryview:
        """Returns the JPEG or PNG bytes of one row, a view into the file.

        Raises:
            DatasetError: The file is gone or has no such column.
        """
        content = self._map(path)
        located = self._located[path]
        if column not in located.spans and column not in located.copies:
            self._locate(path, content, located, column)
        if column in located.copies:
            return memoryview(located.copies[column][row].as_buffer()).cast("B")
        offsets, lengths = located.spans[column]
        start = int(offsets[row])
        return memoryview(content)[start : start + int(lengths[row])]

    def forget(self, path: str) -> None:
        """Drops what is known of a file that was replaced."""
        self._mapped.pop(path, None)
        self._located.pop(path, None)

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
            self._located[path] = _Located(identity)
        self._mapped[path] = content
        while len(self._mapped) > self._max_mapped:
            self._mapped.popitem(last=False)
        return content

    def _locate(self, path: str, content: mmap.mmap, located: _Located, column: str) -> None:
        source = pa.BufferReader(pa.py_buffer(content))
        leaf = f"{column}.bytes"
        try:
            with pq.ParquetFile(source, metadata=located.metadata) as file:
                located.metadata = file.metadata
                try:
                    located.spans[column] = locate_values(content, file.metadata, leaf)
                except NotPlainError as exc:
                    logger.debug("Images of %s are copied to memory: %s", path, exc)
                    images = file.read(columns=[leaf])[column]
                    located.copies[column] = pa.concat_arrays([chunk.field("bytes") for chunk in images.chunks])
        except (pa.ArrowException, KeyError, OSError) as exc:
            raise DatasetError(f"Expected images in column {column!r} of {path}: {exc}.") from exc
