"""Fetches a published policy: only what is not here yet, resumed where it was cut off, every file checked.

The tensors of a publication that lies beside the destination are not fetched again: what training left unchanged
(a frozen backbone, everything but LoRA's matrices) never travels twice.
"""

import hashlib
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from serl_launcher.errors import CheckpointError, PolicyError, ProtocolError
from serl_launcher.files import sync_directory, sync_file, write_atomic
from serl_launcher.publication import MANIFEST, FileEntry, is_as_listed, read_manifest, verify
from serl_launcher.tensor_blocks import Block, fill

logger = logging.getLogger(__name__)

AskForPiece = Callable[[str, int, int], "Future[tuple[bytes, int]]"]
"""Takes a file name, an offset and a number of bytes; the future gives the piece there and the size of the file."""

_PIECES_UNDER_WAY = 4
_COPIED_AT_ONCE = 1024 * 1024


def fetch(ask: AskForPiece, version: int, destination: Path, *, piece_bytes: int) -> Path:
    """Returns `destination`, the directory of a policy whose every checksum is right; a damaged one is fetched again.

    Pieces of an earlier attempt are kept beside it, in `.<name>.part`, and used; so are the tensors of other published
    policies in the same folder.

    Raises:
        DeadlineExceeded: A piece did not come in time.
        PolicyError: The learner has no such version (any more), or a file arrived damaged; ask again.
        OSError: The disk is full or broken.
    """
    if destination.exists() and _is_whole(destination, version):
        return destination
    partial = destination.with_name(f".{destination.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    manifest = _fetch_manifest(ask, piece_bytes)
    if not _is_current(partial, manifest):
        shutil.rmtree(partial)
        partial.mkdir()
    write_atomic(partial / MANIFEST, manifest)
    entries = _read(partial, version)
    fetching = _Fetching(ask, piece_bytes, _blocks_at_hand(destination.parent))
    for name, entry in entries.items():
        fetching.file(name, entry, partial)
    sync_directory(partial)
    partial.rename(destination)
    sync_directory(destination.parent)
    total_bytes = sum(entry.size for entry in entries.values())
    logger.debug("Policy %d: %d of %d bytes were fetched.", version, fetching.num_bytes, total_bytes)
    return destination


def _is_whole(destination: Path, version: int) -> bool:
    """Returns whether a directory holds that policy; one that is damaged is removed, to be fetched again."""
    try:
        found = verify(destination)
    except CheckpointError as exc:
        logger.warning("Policy %d is fetched again: %s", version, exc)
        shutil.rmtree(destination)
        return False
    _check_version(found.version, version, destination)
    return True


def _fetch_manifest(ask: AskForPiece, piece_bytes: int) -> bytes:
    manifest, total_bytes = ask(MANIFEST, 0, piece_bytes).result()
    while len(manifest) < total_bytes:
        piece, _ = ask(MANIFEST, len(manifest), piece_bytes).result()
        if not piece:
            raise PolicyError(f"Expected {total_bytes} bytes of {MANIFEST}, got {len(manifest)}. Fetch again.")
        manifest += piece
    return manifest


def _read(partial: Path, version: int) -> dict[str, FileEntry]:
    try:
        manifest = read_manifest(partial)
    except CheckpointError as exc:
        raise PolicyError(f"The manifest of policy {version} arrived damaged: {exc}") from exc
    _check_version(manifest.version, version, partial)
    for name, entry in manifest.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ProtocolError(f"Expected files inside the directory of policy {version}, got {name!r}.")
        if entry.blocks and not fill(entry.blocks, entry.size):
            spans = [(block.offset, block.size) for block in entry.blocks]
            raise ProtocolError(f"Expected blocks that fill the {entry.size} bytes of {name!r}, got {spans[:10]}.")
    return manifest.files


@dataclass(frozen=True, slots=True)
class _Local:
    """A block that another publication on this machine has."""

    path: Path
    block: Block


def _blocks_at_hand(folder: Path) -> dict[tuple[str, int], _Local]:
    """Returns every block of the complete publications in a folder, by checksum and size."""
    found = {}
    for manifest in folder.glob(f"[!.]*/{MANIFEST}"):
        try:
            entries = read_manifest(manifest.parent).files
        except CheckpointError:
            continue
        for name, entry in entries.items():
            for block in entry.blocks:
                found[block.sha256, block.size] = _Local(manifest.parent / name, block)
    return found


@dataclass(slots=True)
class _Part:
    """The next bytes of a file: a block from this machine, or a piece under way."""

    offset: int
    size: int
    local: _Local | None = None
    future: "Future[tuple[bytes, int]] | None" = None


@dataclass(slots=True)
class _Fetching:
    """One attempt to fetch a publication."""

    ask: AskForPiece
    piece_bytes: int
    at_hand: dict[tuple[str, int], _Local]
    num_bytes: int = 0
    """Bytes that came from the learner."""

    def file(self, name: str, entry: FileEntry, partial: Path) -> None:
        """Completes one file of the directory `partial`."""
        target, growing = partial / name, partial / f"{name}.part"
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with growing.open("ab") as file:
            if file.tell() > entry.size:
                file.truncate(0)
            self._append(name, entry, file)
        if not is_as_listed(growing, entry):
            growing.unlink()
            raise PolicyError(f"File {name!r} arrived damaged (its SHA-256 is wrong). Fetch again.")
        sync_file(growing)
        growing.rename(target)

    def _append(self, name: str, entry: FileEntry, file: BinaryIO) -> None:
        parts = self._parts(entry, file.seek(0, 2))
        ahead: deque[_Part] = deque()
        while True:
            while len(ahead) < _PIECES_UNDER_WAY and (part := next(parts, None)) is not None:
                if part.local is None:
                    part.future = self.ask(name, part.offset, part.size)
                ahead.append(part)
            if not ahead:
                return
            part = ahead.popleft()
            if part.local is None or not _copy(part.local, file):
                self._write_fetched(name, entry, part, file)

    def _parts(self, entry: FileEntry, begin: int) -> Iterator[_Part]:
        """Yields what follows after the first `begin` bytes, in order."""
        for block in entry.blocks or (Block(0, entry.size, ""),):
            end = block.offset + block.size
            local = self.at_hand.get((block.sha256, block.size))
            if local is not None and begin <= block.offset:
                yield _Part(block.offset, block.size, local=local)
                continue
            for offset in range(max(begin, block.offset), end, self.piece_bytes):
                yield _Part(offset, min(self.piece_bytes, end - offset))

    def _write_fetched(self, name: str, entry: FileEntry, part: _Part, file: BinaryIO) -> None:
        for offset in range(part.offset, part.offset + part.size, self.piece_bytes):
            size = min(self.piece_bytes, part.offset + part.size - offset)
            future = part.future or self.ask(name, offset, size)
            piece, total_bytes = future.result()
            if total_bytes != entry.size or len(piece) != size:
                raise PolicyError(f"Expected {size} bytes of {name!r} at {offset}, got {len(piece)}. Fetch again.")
            file.write(piece)
            self.num_bytes += size


def _copy(local: _Local, file: BinaryIO) -> bool:
    """Appends a block of another publication; leaves no trace and returns False where it is not there as promised."""
    begin, left, digest = file.tell(), local.block.size, hashlib.sha256()
    try:
        with local.path.open("rb") as source:
            source.seek(local.block.offset)
            while left and (piece := source.read(min(left, _COPIED_AT_ONCE))):
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
    except FileNotFoundError:
        return False
    if left == 0 and digest.hexdigest() == local.block.sha256:
        return True
    file.seek(begin)
    file.truncate()
    return False


def _is_current(partial: Path, manifest: bytes) -> bool:
    path = partial / MANIFEST
    return path.exists() and path.read_bytes() == manifest


def _check_version(got: int, want: int, where: Path) -> None:
    if got != want:
        raise PolicyError(f"Expected policy {want} in {where}, got {got}. Delete that directory.")
