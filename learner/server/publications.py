"""Serves published policies: what is the newest, and pieces of its files."""

import logging
from collections.abc import Callable
from pathlib import Path

from serl_launcher.errors import CheckpointError, PolicyError
from serl_launcher.publication import MANIFEST, Manifest, Publication, latest, read_manifest
from serl_launcher.transport.messages import Fetch, FetchReply

logger = logging.getLogger(__name__)


class Publications:
    """Reads what the trainer publishes below one directory; never writes there."""

    def __init__(self, root: Path, *, find_latest: Callable[[Path], Publication | None] = latest) -> None:
        self._root = root
        self._find_latest = find_latest
        self._newest: Publication | None = None
        self._manifests: dict[int, Manifest] = {}

    @property
    def newest(self) -> Publication | None:
        """The newest publication as of the last `refresh`."""
        return self._newest

    def refresh(self) -> bool:
        """Looks for a newer publication; returns whether there is one."""
        try:
            found = self._find_latest(self._root)
        except (CheckpointError, OSError) as exc:
            logger.debug("No newer policy: %s", exc)
            return False
        is_newer = found is not None and found != self._newest
        if is_newer:
            self._newest = found
            self._manifests.clear()
        return is_newer

    def read(self, request: Fetch) -> tuple[FetchReply, bytes]:
        """Returns a piece of a published file.

        Raises:
            PolicyError: There is no such version (any more), or no such file in it.
        """
        path = self._root / f"{request.version:08d}"
        try:
            if request.file != MANIFEST and request.file not in self._manifest(request.version).files:
                raise PolicyError(f"Policy {request.version} has no file {request.file!r}.")
            with (path / request.file).open("rb") as file:
                total_bytes = file.seek(0, 2)
                file.seek(request.offset)
                piece = file.read(request.size)
        except (OSError, CheckpointError) as exc:
            newest = "none" if self._newest is None else str(self._newest.version)
            raise PolicyError(
                f"Policy {request.version} is not published here (any more); the newest is {newest}. {exc}"
            ) from exc
        return FetchReply(request_id=request.request_id, offset=request.offset, total_bytes=total_bytes), piece

    def _manifest(self, version: int) -> Manifest:
        if version not in self._manifests:
            self._manifests[version] = read_manifest(self._root / f"{version:08d}")
        return self._manifests[version]
