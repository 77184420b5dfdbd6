"""Atomic files: a reader sees the old content or the new one, never a part, also after a crash."""

import hashlib
import os
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replaces `path` by `content` through a synced temporary file and a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def sync_file(path: Path) -> None:
    """Forces a finished file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Forces the names in a directory to disk, so that a rename survives a power cut."""
    sync_file(path)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
