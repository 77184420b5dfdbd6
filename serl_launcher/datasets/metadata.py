"""The metadata of episodes: many rows per parquet file, each file replaced whole, so that readers open few of them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import FILES_PER_CHUNK, DatasetLayout, stage_parquet, write_parquet
from serl_launcher.errors import DatasetError
from serl_launcher.files import StagedFiles

logger = logging.getLogger(__name__)

ROWS_PER_FILE = 100
"""A file is written again with each row that it takes in: more rows make dearer episodes and cheaper readers."""

_COLUMNS = (
    features.EPISODE_INDEX,
    features.EPISODE_ID,
    features.OUTCOME,
    "labelled_by",
    "length",
    "dataset_from_index",
    "data/chunk_index",
    "data/file_index",
)


@dataclass(kw_only=True, slots=True)
class StoredEpisode:
    """One episode of the dataset, as its metadata tells."""

    episode_index: int
    episode_id: str
    outcome: str
    labelled_by: str
    length: int
    first_step: int
    data_number: int
    """Number of its data file, and of the file of its final observation."""
    metadata_number: int
    """Number of the metadata file that holds its row."""


def number_of(path: Path) -> int:
    """Returns the number of a file `chunk-CCC/file-FFF.parquet`, see `layout.numbered`."""
    return int(path.parent.name.removeprefix("chunk-")) * FILES_PER_CHUNK + int(path.stem.removeprefix("file-"))


class EpisodeMetadata:
    """Reads and writes the files in `meta/episodes`. One writer; a crash leaves the old content or the new one."""

    def __init__(self, layout: DatasetLayout) -> None:
        """Reads nothing yet."""
        self._layout = layout
        self._open_number = 0
        self._open: pa.Table | None = None

    def read(self) -> list[StoredEpisode]:
        """Returns all rows by episode index; the next `append` goes on behind them.

        Raises:
            DatasetError: A file is damaged, or the indices have gaps or repeat.
        """
        found: list[StoredEpisode] = []
        paths = sorted(self._layout.episodes.glob("chunk-*/file-*.parquet"))
        for path in paths:
            found.extend(_stored(path))
        found.sort(key=lambda episode: episode.episode_index)
        for expected, episode in enumerate(found):
            if episode.episode_index != expected:
                raise DatasetError(
                    f"Expected metadata of episode {expected} in {self._layout.episodes}, got {episode.episode_index}. "
                    "Restore the folder from a backup."
                )
        self._open_number = number_of(paths[-1]) if paths else 0
        self._open = None
        return found

    def next_number(self, schema: pa.Schema) -> int:
        """Returns the number of the file that takes the next row."""
        path = self._layout.metadata_file(self._open_number)
        if self._open is None and path.exists():
            self._open = _read(path)
        is_usable = self._open is None or (len(self._open) < ROWS_PER_FILE and self._open.schema.equals(schema))
        if not is_usable:
            self._open_number, self._open = self._open_number + 1, None
        return self._open_number

    def append(self, row: pa.Table, files: StagedFiles) -> Path:
        """Stages the file that `next_number` named with one more row; returns its path.

        Where the caller does not name the file after all, `read` comes before the next `append`.
        """
        table = row if self._open is None else pa.concat_tables([self._open, row]).combine_chunks()
        path = self._layout.metadata_file(self._open_number)
        stage_parquet(files, path, table)
        self._open = table
        return path

    def replace(self, episode: StoredEpisode, values: Mapping[str, object], files: StagedFiles) -> Path:
        """Stages the file of an episode's row with other values in some columns; returns its path."""
        path = self._layout.metadata_file(episode.metadata_number)
        table = _read(path)
        row = table[features.EPISODE_INDEX].to_pylist().index(episode.episode_index)
        for name, value in values.items():
            column = table[name].combine_chunks()
            parts = [column.slice(0, row), pa.array([value], column.type), column.slice(row + 1)]
            position = table.column_names.index(name)
            table = table.set_column(position, table.schema.field(name), pa.concat_arrays(parts))
        stage_parquet(files, path, table)
        self._forget(episode.metadata_number)
        return path

    def drop(self, episodes: list[StoredEpisode]) -> None:
        """Removes the rows of the newest episodes; the caller keeps a copy of the files."""
        gone = {episode.episode_index for episode in episodes}
        for number in sorted({episode.metadata_number for episode in episodes}):
            path = self._layout.metadata_file(number)
            table = _read(path)
            kept = [row for row, index in enumerate(table[features.EPISODE_INDEX].to_pylist()) if index not in gone]
            if kept:
                write_parquet(path, table.take(kept))
            else:
                path.unlink()
            self._forget(number)

    def _forget(self, number: int) -> None:
        if number == self._open_number:
            self._open = None


def read_statistics(layout: DatasetLayout, num_episodes: int) -> list[dict[str, dict[str, object]]]:
    """Returns feature to statistic to value of each of the first episodes, in order of their metadata files."""
    found: list[dict[str, dict[str, object]]] = []
    for path in sorted(layout.episodes.glob("chunk-*/file-*.parquet")):
        for row in _read(path).to_pylist():
            if row[features.EPISODE_INDEX] >= num_episodes:
                continue
            episode: dict[str, dict[str, object]] = {}
            for column, value in row.items():
                if column.startswith("stats/"):
                    _, feature, statistic = column.split("/")
                    episode.setdefault(feature, {})[statistic] = value
            found.append(episode)
    return found


def _stored(path: Path) -> list[StoredEpisode]:
    table = _read(path, list(_COLUMNS))
    number = number_of(path)
    return [
        StoredEpisode(
            episode_index=row[features.EPISODE_INDEX],
            episode_id=row[features.EPISODE_ID],
            outcome=row[features.OUTCOME],
            labelled_by=row["labelled_by"],
            length=row["length"],
            first_step=row["dataset_from_index"],
            data_number=row["data/chunk_index"] * FILES_PER_CHUNK + row["data/file_index"],
            metadata_number=number,
        )
        for row in table.to_pylist()
    ]


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=columns)
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise DatasetError(f"Expected episode metadata in {path}: {exc}. Restore the file from a backup.") from exc
