"""Opens the LMDB stores that survive a kill: the journal of the learner and the spool of an actor."""

import contextlib
import fcntl
import logging
import os
import weakref
from pathlib import Path

import lmdb

from serl_launcher.errors import DatasetError, HiorsError

logger = logging.getLogger(__name__)

_SMALLEST_MAP_BYTES = 64 * 1024**2
_KEY_WIDTH = 8


class DirectoryLock:
    """Exclusive use of a directory by one object; the system frees it when the process dies.

    An object that nobody refers to any more is freed as well.
    """

    def __init__(self, directory: Path, *, error: type[HiorsError]) -> None:
        """Takes the lock at once; raises `error` where a living process holds it."""
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "owner.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise error(
                f"Expected {directory} to be free, but the process {owner} on this machine uses it. "
                "Stop that process, or give this one another id."
            ) from exc
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # A full disk: the lock holds, only nobody can read whose it is.
            os.write(descriptor, str(os.getpid()).encode())
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Gives the directory free; may be called twice."""
        self._close()


def open_store(path: Path, *, map_bytes: int, num_databases: int, is_synced: bool) -> lmdb.Environment:
    """Returns the LMDB environment in the directory `path`, made where it does not exist.

    Args:
        path: Directory of the store.
        map_bytes: Largest size. Only address space is reserved; the file grows as it is used.
        num_databases: Named databases inside.
        is_synced: Whether a commit returns only when the disk has it. Unsynced commits survive the death of any
            process; a power cut can damage the whole store, also what was synced before them.

    Raises:
        DatasetError: The files there are no store, or damaged.
    """
    path.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            store = lmdb.open(
                str(path), map_size=map_bytes, max_dbs=num_databases, sync=is_synced, metasync=is_synced,
                readahead=False, meminit=False, max_readers=256,
            )  # fmt: skip
        except lmdb.MemoryError:
            if map_bytes <= _SMALLEST_MAP_BYTES:
                raise
            map_bytes //= 2
            logger.warning("Address space is limited; trying a store of at most %d bytes at %s.", map_bytes, path)
        except lmdb.Error as exc:
            raise DatasetError(
                f"Expected an LMDB store in {path}: {exc}. Move the directory away to start anew."
            ) from exc
        else:
            store.reader_check()  # Frees the read slots of killed processes.
            return store


def number_to_key(*numbers: int) -> bytes:
    """Returns a key that sorts like the tuple of non-negative numbers."""
    return b"".join(number.to_bytes(_KEY_WIDTH, "big") for number in numbers)


def key_to_number(key: bytes | memoryview) -> int:
    """Returns the last number in a key made by `number_to_key`."""
    return int.from_bytes(key[-_KEY_WIDTH:], "big")
