"""What a crash can leave in a dataset, and how it is put right."""

import logging
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import DatasetLayout, numbered
from serl_launcher.datasets.statistics import FeatureStatistics, aggregate
from serl_launcher.errors import DatasetError

logger = logging.getLogger(__name__)

_ROW_COLUMNS = [features.EPISODE_INDEX, features.EPISODE_ID, features.OUTCOME, "labelled_by", "dataset_to_index"]


def remove_temporary_files(layout: DatasetLayout) -> None:
    """Deletes files that were being written when a process died; none of them was ever part of the dataset."""
    for folder in ("meta", "data", "final_observations"):
        for path in (layout.root / folder).rglob(".*.tmp"):
            path.unlink()


def count_complete(layout: DatasetLayout, num_vouched: int) -> int:
    """Returns how many episodes are on disk with all of their own files, counted or not.

    Raises:
        DatasetError: A file is missing of an episode that info.json counts.
    """
    for index in range(num_vouched):
        if not (layout.episode_file(index).exists() and layout.data_file(index).exists()):
            raise DatasetError(
                f"{layout.root} counts {num_vouched} episodes, but files of episode {index} are missing. "
                "Restore them, or start a new dataset."
            )
    count = num_vouched
    while layout.episode_file(count).exists() and layout.data_file(count).exists() and layout.tasks.exists():
        count += 1
    return count


def set_aside_beyond(layout: DatasetLayout, num_episodes: int) -> None:
    """Moves the files of an unfinished episode to `set_aside`; the journal still has its steps."""
    for path in (
        layout.episode_file(num_episodes),
        layout.data_file(num_episodes),
        layout.final_file(num_episodes),
    ):
        if path.exists():
            folder = layout.set_aside / path.relative_to(layout.root).parts[0]
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"{numbered(num_episodes).as_posix().replace('/', '-')}.{time.time_ns()}.unfinished"
            path.replace(target)
            logger.warning("Unfinished %s is now %s; the episode is sealed again from the journal.", path, target)


def read_rows(layout: DatasetLayout, num_episodes: int) -> list[dict]:
    """Returns index, id, label and end of each episode, in order."""
    rows = []
    for index in range(num_episodes):
        row = _read(layout.episode_file(index), _ROW_COLUMNS)[0]
        if row[features.EPISODE_INDEX] != index:
            raise DatasetError(
                f"{layout.episode_file(index)} holds episode {row[features.EPISODE_INDEX]}, not {index}."
            )
        rows.append(row)
    return rows


def aggregate_rows(layout: DatasetLayout, num_episodes: int) -> dict[str, FeatureStatistics]:
    """Returns the statistics of the dataset, computed anew from those of its episodes."""
    parts: dict[str, list[FeatureStatistics]] = {}
    for index in range(num_episodes):
        episode: dict[str, FeatureStatistics] = {}
        for column, value in _read(layout.episode_file(index), None)[0].items():
            if column.startswith("stats/"):
                _, feature, statistic = column.split("/")
                episode.setdefault(feature, {})[statistic] = np.asarray(value)
        for feature, statistics in episode.items():
            parts.setdefault(feature, []).append(statistics)
    return {feature: aggregate(statistics) for feature, statistics in parts.items()}


def _read(path: Path, columns: list[str] | None) -> list[dict]:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise DatasetError(f"Expected episode metadata in {path}: {exc}. Restore the file from a backup.") from exc
