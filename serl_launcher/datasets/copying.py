"""Copies chosen episodes of a dataset of ours into a new one: joined into larger files, or without some episodes.

The new dataset is whole only with its info.json, which is written last. The source is never touched.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import FILES_PER_CHUNK, VIDEO_PATTERN, DatasetLayout, read_info, write_parquet
from serl_launcher.datasets.metadata import ROWS_PER_FILE
from serl_launcher.datasets.recovery import aggregate_rows
from serl_launcher.datasets.statistics import to_lists, vector_statistics
from serl_launcher.datasets.tables import column_values, statistics_columns
from serl_launcher.errors import DatasetError
from serl_launcher.files import sync_directory, sync_file, write_atomic

_SKIPPABLE = [features.EPISODE_INDEX, features.INDEX, features.FRAME_INDEX, features.TASK_INDEX]


@dataclass(kw_only=True, slots=True)
class CopiedEpisode:
    """One episode on its way into the new dataset, with its new numbers."""

    row: dict[str, object]
    """Its metadata; file numbers are filled in when the file is written."""
    steps: pa.Table
    final: pa.Table | None

    @property
    def length(self) -> int:
        """Number of its steps."""
        return len(self.steps)


Group = list[CopiedEpisode]
"""Episodes that share a data file."""

Store = Callable[[DatasetLayout, int, Group], pa.Table]
"""Takes the episodes of file number n; returns their steps as they are to be written. May write files of its own and
set columns of the rows."""


def keep_steps(_layout: DatasetLayout, _number: int, group: Group) -> pa.Table:
    """Returns the steps as they are, images inside."""
    return pa.concat_tables([episode.steps for episode in group])


def copy_episodes(
    source: Path, target: Path, episodes: Sequence[int], *, file_bytes: int = 0, store: Store = keep_steps,
    described: dict[str, dict] | None = None,
) -> int:  # fmt: skip
    """Writes a new dataset of the chosen episodes and returns its number of steps.

    Args:
        source: A dataset that hiors wrote; nobody may write to it meanwhile.
        target: Must not hold a dataset.
        episodes: Indices in the source, in the order of the new dataset; at least one.
        file_bytes: Data files take episodes up to this size; each episode has its own file if 0.
        store: How the steps are stored.
        described: Features of the new dataset, where `store` makes videos of the pictures.

    Raises:
        DatasetError: There is nothing to copy, the target exists or the source is damaged.
    """
    info = read_info(source)
    layout = DatasetLayout(target)
    if layout.info.exists() or not episodes:
        raise DatasetError(f"Expected episodes to copy and no dataset in {target}, got {len(episodes)} episodes.")
    rows, schema = _metadata(DatasetLayout(source))
    missing = [index for index in episodes if index not in rows]
    if missing:
        raise DatasetError(f"{source} has no episodes {missing[:20]}; it has {len(rows)}.")
    written: list[dict[str, object]] = []
    for number, group in enumerate(_groups(_copied(DatasetLayout(source), [rows[i] for i in episodes]), file_bytes)):
        _write_group(layout, number, group, store)
        written.extend(episode.row for episode in group)
    _write_metadata(layout, written, schema)
    num_steps = sum(int(str(row["length"])) for row in written)
    info |= {"total_episodes": len(written), "total_frames": num_steps, "splits": {"train": f"0:{len(written)}"}}
    info |= {"features": described, "video_path": VIDEO_PATTERN} if described else {}
    _finish(layout, DatasetLayout(source), info)
    return num_steps


def _finish(layout: DatasetLayout, source: DatasetLayout, info: dict) -> None:
    """Writes what concerns the whole dataset; info.json last, when everything else is on disk."""
    layout.tasks.write_bytes(source.tasks.read_bytes())
    write_atomic(layout.robot_spec, source.robot_spec.read_bytes())
    if source.pinned.exists():
        write_atomic(layout.pinned, source.pinned.read_bytes())
    statistics = to_lists(aggregate_rows(layout, info["total_episodes"]))
    write_atomic(layout.stats, msgspec.json.format(msgspec.json.encode(statistics), indent=4))
    sync_file(layout.tasks)
    for folder in {path.parent for path in layout.root.rglob("*.*") if path.is_file()}:
        sync_directory(folder)
    write_atomic(layout.info, msgspec.json.format(msgspec.json.encode(info), indent=4))


def _metadata(layout: DatasetLayout) -> tuple[dict[int, dict[str, object]], pa.Schema]:
    """Returns all metadata rows by episode index, and their schema."""
    tables = []
    for path in sorted(layout.episodes.glob("chunk-*/file-*.parquet")):
        with pq.ParquetFile(path) as file:
            tables.append(file.read())
    if not tables or features.EPISODE_ID not in tables[0].column_names:
        raise DatasetError(f"Expected a dataset that hiors wrote in {layout.root}.")
    table = pa.concat_tables(tables, promote_options="default")
    return {row[features.EPISODE_INDEX]: row for row in table.to_pylist()}, table.schema


def _copied(layout: DatasetLayout, rows: Iterable[dict[str, object]]) -> Iterator[CopiedEpisode]:
    """Yields the episodes with new indices; reads each data file once where its episodes follow each other."""
    opened: tuple[Path | None, pa.Table | None, pa.Table | None] = (None, None, None)
    first_step = 0
    for new_index, row in enumerate(rows):
        number = _number(row)
        path = layout.data_file(number)
        if opened[0] != path:
            final_path = layout.final_file(number)
            opened = (path, _read(path), _read(final_path) if final_path.exists() else None)
        _, steps, finals = opened
        assert steps is not None, "read with its path"
        episode = _renumbered(row, steps, finals, new_index=new_index, first_step=first_step)
        if episode.length != row["length"]:
            raise DatasetError(f"{path} holds {episode.length} steps of episode {row['episode_index']}, not as said.")
        first_step += episode.length
        yield episode


def _renumbered(
    row: dict[str, object], steps: pa.Table, finals: pa.Table | None, *, new_index: int, first_step: int
) -> CopiedEpisode:
    own = steps.filter(pa.array(column_values(steps, features.EPISODE_INDEX) == row[features.EPISODE_INDEX]))
    length = len(own)
    numbers = {
        features.EPISODE_INDEX: np.full(length, new_index, np.int64),
        features.INDEX: first_step + np.arange(length, dtype=np.int64),
    }
    for name, values in numbers.items():
        own = own.set_column(own.column_names.index(name), own.schema.field(name), pa.array(values))
    final = None
    if finals is not None:
        final = finals.filter(pa.array([each == row[features.EPISODE_ID] for each in finals["episode_id"].to_pylist()]))
    new_row = dict(row)
    new_row |= {
        features.EPISODE_INDEX: new_index,
        "dataset_from_index": first_step,
        "dataset_to_index": first_step + length,
    }
    new_row |= statistics_columns({name: vector_statistics(values) for name, values in numbers.items()})
    return CopiedEpisode(row=new_row, steps=own, final=final)


def _groups(episodes: Iterable[CopiedEpisode], file_bytes: int) -> Iterator[Group]:
    group: Group = []
    num_bytes = 0
    for episode in episodes:
        if group and num_bytes + episode.steps.nbytes > file_bytes:
            yield group
            group, num_bytes = [], 0
        group.append(episode)
        num_bytes += episode.steps.nbytes
    if group:
        yield group


def _write_group(layout: DatasetLayout, number: int, group: Group, store: Store) -> None:
    chunk, file = divmod(number, FILES_PER_CHUNK)
    for episode in group:
        episode.row |= {"data/chunk_index": chunk, "data/file_index": file}
    finals = [episode.final for episode in group if episode.final is not None]
    if finals:
        write_parquet(layout.final_file(number), pa.concat_tables(finals).combine_chunks())
    steps = store(layout, number, group).combine_chunks()
    write_parquet(layout.data_file(number), steps, statistics=_SKIPPABLE)
    for episode in group:
        episode.steps, episode.final = episode.steps.slice(0, 0), None  # Their memory is needed for the next file.


def _write_metadata(layout: DatasetLayout, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    added = [name for name in rows[0] if name not in schema.names]
    for name in added:
        kind = pa.float64() if isinstance(rows[0][name], float) else pa.int64()
        schema = schema.append(pa.field(name, kind))
    for number, first in enumerate(range(0, len(rows), ROWS_PER_FILE)):
        chunk, file = divmod(number, FILES_PER_CHUNK)
        part = [
            {**row, "meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
            for row in rows[first : first + ROWS_PER_FILE]
        ]
        write_parquet(layout.metadata_file(number), pa.Table.from_pylist(part, schema))


def _number(row: dict[str, object]) -> int:
    return int(str(row["data/chunk_index"])) * FILES_PER_CHUNK + int(str(row["data/file_index"]))


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError) as exc:
        raise DatasetError(f"Expected episodes in {path}: {exc}. Run tools.replay verify.") from exc
