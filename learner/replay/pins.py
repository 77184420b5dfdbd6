"""Pins: episodes that stay in the sampling window however old they are."""

from collections.abc import Iterable
from pathlib import Path

from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.errors import ConfigError
from serl_launcher.files import file_identity, write_atomic

_FILE_MARK = "@"


class PinFile:
    """The pins of one dataset, `meta/pinned.txt`, which `tools.replay pin` writes also while a learner runs.

    Attributes:
        names: Ids of the pinned episodes.
    """

    def __init__(self, root: Path) -> None:
        """Reads nothing yet."""
        self._path = DatasetLayout(root).pinned
        self._identity: tuple[int, int, int] | None = None
        self.names: frozenset[str] = frozenset()

    def refresh(self) -> bool:
        """Reads the file where it changed; returns whether it did."""
        identity = file_identity(self._path)
        if identity == self._identity:
            return False
        self._identity = identity
        self.names = frozenset() if identity is None else _lines(self._path)
        return True

    def write(self, names: Iterable[str]) -> None:
        """Replaces the pins."""
        write_atomic(self._path, "".join(f"{name}\n" for name in sorted(names)).encode())
        self.refresh()


def named(pinned: Iterable[str]) -> frozenset[str]:
    """Returns the episodes that `dataset.pinned` names: numbers and ids, those in files among them.

    Raises:
        ConfigError: A file is not there.
    """
    names: set[str] = set()
    for entry in pinned:
        if not entry.startswith(_FILE_MARK):
            names.add(entry)
            continue
        path = Path(entry.removeprefix(_FILE_MARK)).expanduser()
        if not path.is_file():
            raise ConfigError(f"dataset.pinned: expected a file with one episode a line at {path}, there is none.")
        names |= _lines(path)
    return frozenset(names)


def _lines(path: Path) -> frozenset[str]:
    return frozenset(line.strip() for line in path.read_text().splitlines() if line.strip())
