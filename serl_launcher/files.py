"""Atomic files: a reader sees the old content or the new one, never a part, also after a crash."""

import ctypes
import fcntl
import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

_SYNCED_AT_ONCE = 8
_PIECE_BYTES = 512 * 1024
_SHORTEST_REST_S = 2e-4
_LIBC = ctypes.CDLL(None, use_errno=True)
_WAIT_WRITE_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER


class StagedFiles:
    """Files that are written under temporary names, forced to disk side by side, then named one by one.

    The disk works on the first ones while the others are still made; syncs that run side by side share one journal
    commit of the file system. Leaving the block drops what was not named.

    Example:
        with StagedFiles() as files:
            for path, content in contents.items():
                files.add(path).write_bytes(content)
                files.written(path)
            files.sync()
            for path in contents:
                files.name(path)
    """

    def __init__(self) -> None:
        self._temporary: dict[Path, Path] = {}
        self._syncs: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(_SYNCED_AT_ONCE, thread_name_prefix="sync")

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        for temporary in self._temporary.values():  # Half a file would take room on a disk that has none.
            temporary.unlink(missing_ok=True)

    def add(self, path: Path) -> Path:
        """Returns where to write what `path` shall hold; missing folders are made."""
        make_directory(path.parent)
        self._temporary[path] = temporary_name(path)
        return self._temporary[path]

    def written(self, path: Path) -> None:
        """Begins to force a finished file to disk."""
        self._syncs.append(self._pool.submit(sync_file, self._temporary[path]))

    def write(self, path: Path, content: bytes) -> None:
        """Stages a small file."""
        self.add(path).write_bytes(content)
        self.written(path)

    def sync(self) -> None:
        """Returns when the disk has every file; raises OSError where it refuses one."""
        for sync in self._syncs:
            sync.result()
        self._syncs.clear()

    def name(self, path: Path) -> None:
        """Gives a file its name, at once for every reader; `sync_directories` makes names survive a power cut."""
        self._temporary.pop(path).replace(path)


def write_atomic(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replaces `path` by `content` through a synced temporary file and a rename."""
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:  # Half a file would take room on a disk that has none.
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Makes a directory and the missing ones above it, so that their names survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_directory(folder.parent)


def sync_file(path: Path) -> None:
    """Forces a finished file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_large_file(path: Path) -> None:
    """Forces a finished file to disk in pieces, and leaves the disk to others for as long as each piece took.

    A commit of the journal that comes meanwhile waits for one piece instead of the whole file.
    """
    write_range = getattr(_LIBC, "sync_file_range", None)
    descriptor = os.open(path, os.O_RDWR)
    try:
        if write_range is not None:
            for offset in range(0, os.fstat(descriptor).st_size, _PIECE_BYTES):
                began = time.monotonic()
                write_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(_PIECE_BYTES), _WAIT_WRITE_WAIT)
                time.sleep(max(time.monotonic() - began, _SHORTEST_REST_S))
        os.fsync(descriptor)  # Says whether a piece failed; does it all where this system has no such call.
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Forces the names in a directory to disk, so that a rename survives a power cut."""
    sync_file(path)


def sync_directories(paths: Iterable[Path]) -> None:
    """Forces the names in several directories to disk."""
    for path in dict.fromkeys(paths):  # One after the other: the first sync carries all names.
        sync_directory(path)


def is_open_elsewhere(path: Path) -> bool:
    """Whether anybody has a file open or mapped; True also where the system cannot tell.

    Nobody else may be about to open it: whoever does while this asks would have to wait.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:  # A lease for writing is given to the only one who has the file open.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, AttributeError):  # In use; or a file system, or a system, without leases.
        return True
    finally:
        os.close(descriptor)
    return False


def file_identity(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file is replaced; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def temporary_name(path: Path) -> Path:
    """Returns the name under which a file is written before it gets its own."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
