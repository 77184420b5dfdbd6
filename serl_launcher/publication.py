"""Published policies: immutable directories of files with a version number, a manifest and checksums.

    policies/00000050/{manifest.json, model.safetensors, config.json, ...}
    policies/LATEST                 the newest version number, replaced atomically
    policies/.spare                 the weights of a deleted version, to be written over

The trainer publishes; the learner server loads and serves them; an actor fetches them. A directory appears under its
final name only when it is complete and synced, and never changes afterwards. A large file of a deleted version is kept
for the next one, where nobody reads it any more: to find memory and room for a new file takes longer than to write it.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from serl_launcher import failpoints
from serl_launcher.errors import CheckpointError
from serl_launcher.files import (
    is_open_elsewhere,
    sha256_of,
    sync_directory,
    sync_file,
    sync_large_file,
    write_atomic,
)
from serl_launcher.tensor_blocks import SUFFIX, Block, digests_at, fill, read_blocks

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
LATEST = "LATEST"
_TEMPORARY_PREFIX = ".tmp-"
_SPARE = ".spare"
_LEAST_SPARE_BYTES = 64 * 1024 * 1024


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and checksums of one published file."""

    size: int
    sha256: str = ""
    """SHA-256 (hex) of the whole file; does not count where there are blocks, whose checksums are the file's."""
    blocks: tuple[Block, ...] = ()
    """The tensors of a file of weights; a reader that has some of them already fetches the others alone."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a published directory consists of, besides the manifest itself."""

    version: int
    files: dict[str, FileEntry]
    """File name relative to the directory, with forward slashes, to size and checksum."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One published policy."""

    version: int
    path: Path
    digest: str
    """SHA-256 (hex) of the manifest, hence of every file."""


class Publisher:
    """The only writer of a directory of publications; one process at a time."""

    def __init__(self, root: Path, *, keep: int = 3) -> None:
        """Publishes below `root`, which is made; older publications than the newest `keep` are deleted."""
        self._root = root
        self._keep = keep
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f"{_TEMPORARY_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def publish(self, write: Callable[[Path], Mapping[str, FileEntry] | None], version: int) -> Publication:
        """Publishes what `write` puts into the empty directory it is given; it may return checksums it knows already.

        Raises:
            CheckpointError: That version or a newer one is published already; versions only grow.
        """
        newest = latest(self._root)
        if newest is not None and version <= newest.version:
            raise CheckpointError(
                f"Expected a policy version above {newest.version}, the newest in {self._root}, got {version}. "
                "A published version never changes; publish under a higher number."
            )
        temporary = self._root / f"{_TEMPORARY_PREFIX}{version}-{os.getpid()}"
        temporary.mkdir()
        try:
            _move_if_there(self._root / _SPARE, temporary / _SPARE)
            written = write(temporary)
            known = written if isinstance(written, Mapping) else {}
            (temporary / _SPARE).unlink(missing_ok=True)
            _write_manifest(temporary, version, with_blocks=True, known=known)
            failpoints.reached("publication written")
            final = self._root / f"{version:08d}"
            if final.exists():  # Complete, but its writer died before LATEST named it.
                shutil.rmtree(final)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(self._root)
        failpoints.reached("publication renamed")
        write_atomic(self._root / LATEST, f"{version}\n".encode())
        failpoints.reached("publication named")
        self._delete_old()
        return Publication(version, final, sha256_of(final / MANIFEST))

    def _delete_old(self) -> None:
        published = sorted(path for path in self._root.iterdir() if path.is_dir() and path.name.isdigit())
        for path in published[: -self._keep]:
            weights = max(path.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_size, default=None)
            if weights is not None and weights.stat().st_size >= _LEAST_SPARE_BYTES:
                _keep_as_spare(weights, self._root / _SPARE)
            shutil.rmtree(path, ignore_errors=True)


def take_spare(path: Path) -> None:
    """Gives a file that is about to be written, in a directory that `Publisher.publish` gave, the spare one's place."""
    _move_if_there(path.with_name(_SPARE), path)


def _move_if_there(source: Path, destination: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        source.rename(destination)


def _keep_as_spare(file: Path, spare: Path) -> None:
    """Moves a file away, so that nobody can open it any more, and keeps it where nobody has it open from before."""
    file.rename(spare)
    if is_open_elsewhere(spare):
        spare.unlink()


def latest(root: Path) -> Publication | None:
    """Returns the newest publication below `root`, None where there is none yet. Reads no weights."""
    try:
        name = (root / LATEST).read_text().strip()
    except FileNotFoundError:
        return None
    if not name.isdigit():
        raise CheckpointError(f"Expected a version number in {root / LATEST}, got {name!r}. Delete the file.")
    path = root / f"{int(name):08d}"
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{root / LATEST} names version {name}, but {path / MANIFEST} is missing.")
    return Publication(int(name), path, sha256_of(path / MANIFEST))


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest of the published directory `path`; raises CheckpointError where it is missing or damaged."""
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as exc:
        raise CheckpointError(f"Expected the manifest of a policy at {path / MANIFEST}: {exc}.") from exc


def verify(path: Path) -> Publication:
    """Returns the publication in `path` after reading every file and comparing its checksum.

    Raises:
        CheckpointError: A file is missing, has another size or other content than the manifest says.
    """
    manifest = read_manifest(path)
    for name, entry in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"Policy {manifest.version} in {path} lacks {name!r}; fetch or publish it again.")
        if not is_as_listed(file, entry):
            raise CheckpointError(
                f"Policy {manifest.version}: {file} is not what the manifest says (expected {entry.size} bytes and its "
                f"checksums, got {file.stat().st_size} bytes). Fetch or publish it again."
            )
    return Publication(manifest.version, path, sha256_of(path / MANIFEST))


def is_as_listed(file: Path, entry: FileEntry) -> bool:
    """Whether a file has the size and the checksums of its entry; reads all of it."""
    if file.stat().st_size != entry.size:
        return False
    if not entry.blocks:
        return sha256_of(file) == entry.sha256
    spans = [(block.offset, block.size) for block in entry.blocks]
    return fill(entry.blocks, entry.size) and digests_at(file, spans) == entry.blocks


def seal_directory(path: Path, version: int) -> None:
    """Writes the manifest of a finished directory and forces every file in it to disk, in no hurry."""
    for file in path.rglob("*"):
        if file.is_file():
            sync_large_file(file)
    _write_manifest(path, version, with_blocks=False)


def _write_manifest(
    path: Path, version: int, *, with_blocks: bool, known: Mapping[str, FileEntry] | None = None
) -> None:
    files = dict(known or {})
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        sync_file(file)
        if file.relative_to(path).as_posix() in files:
            continue
        blocks = read_blocks(file) if with_blocks else ()
        whole = "" if blocks else sha256_of(file)
        files[file.relative_to(path).as_posix()] = FileEntry(file.stat().st_size, whole, blocks)
    if not files:
        raise CheckpointError(f"Expected files of policy {version} in {path}, found none.")
    content = json.dumps(msgspec.to_builtins(Manifest(version, files)), indent=1, sort_keys=True)
    write_atomic(path / MANIFEST, content.encode())
    for directory in sorted(entry for entry in path.rglob("*") if entry.is_dir()):
        sync_directory(directory)
