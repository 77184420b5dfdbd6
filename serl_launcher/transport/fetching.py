"""Fetches a published policy in pieces: resumes where it was cut off, checks every file, appears whole or not."""

import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath

from serl_launcher.errors import CheckpointError, PolicyError, ProtocolError
from serl_launcher.files import sha256_of, sync_directory, sync_file, write_atomic
from serl_launcher.publication import MANIFEST, FileEntry, read_manifest, verify

AskForPiece = Callable[[str, int], "Future[tuple[bytes, int]]"]
"""Takes a file name and an offset; the future gives the piece there and the size of the file."""

_PIECES_UNDER_WAY = 4


def fetch(ask: AskForPiece, version: int, destination: Path, *, piece_bytes: int) -> Path:
    """Returns `destination`, the directory of a policy whose every checksum is right.

    Pieces of an earlier attempt are kept beside it, in `.<name>.part`, and used.

    Raises:
        DeadlineExceeded: A piece did not come in time.
        PolicyError: The learner has no such version (any more), or a file arrived damaged; ask again.
    """
    if destination.exists():
        _check_version(verify(destination).version, version, destination)
        return destination
    partial = destination.with_name(f".{destination.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    manifest, _ = ask(MANIFEST, 0).result()
    if not _is_current(partial, manifest):
        shutil.rmtree(partial)
        partial.mkdir()
    write_atomic(partial / MANIFEST, manifest)
    entries = _read(partial, version)
    for name, entry in entries.items():
        _fetch_file(ask, name, entry, partial, piece_bytes=piece_bytes)
    sync_directory(partial)
    partial.rename(destination)
    sync_directory(destination.parent)
    return destination


def _read(partial: Path, version: int) -> dict[str, FileEntry]:
    try:
        manifest = read_manifest(partial)
    except CheckpointError as exc:
        raise PolicyError(f"The manifest of policy {version} arrived damaged: {exc}") from exc
    _check_version(manifest.version, version, partial)
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ProtocolError(f"Expected files inside the directory of policy {version}, got {name!r}.")
    return manifest.files


def _fetch_file(ask: AskForPiece, name: str, entry: FileEntry, partial: Path, *, piece_bytes: int) -> None:
    target, growing = partial / name, partial / f"{name}.part"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with growing.open("ab") as file:
        if file.tell() > entry.size:
            file.truncate(0)
        offsets = iter(range(file.seek(0, 2), entry.size, piece_bytes))
        under_way: deque[tuple[int, Future[tuple[bytes, int]]]] = deque()
        while True:
            while len(under_way) < _PIECES_UNDER_WAY and (offset := next(offsets, None)) is not None:
                under_way.append((offset, ask(name, offset)))
            if not under_way:
                break
            offset, future = under_way.popleft()
            piece, total_bytes = future.result()
            expected = min(piece_bytes, entry.size - offset)
            if total_bytes != entry.size or len(piece) != expected:
                raise PolicyError(f"Expected {expected} bytes of {name!r} at {offset}, got {len(piece)}. Fetch again.")
            file.write(piece)
    if sha256_of(growing) != entry.sha256:
        growing.unlink()
        raise PolicyError(f"File {name!r} arrived damaged (its SHA-256 is wrong). Fetch again.")
    sync_file(growing)
    growing.rename(target)


def _is_current(partial: Path, manifest: bytes) -> bool:
    path = partial / MANIFEST
    return path.exists() and path.read_bytes() == manifest


def _check_version(got: int, want: int, where: Path) -> None:
    if got != want:
        raise PolicyError(f"Expected policy {want} in {where}, got {got}. Delete that directory.")
