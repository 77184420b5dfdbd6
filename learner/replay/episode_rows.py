"""The episodes of a LeRobot dataset, format v3 or v2, as its metadata lists them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import VIDEO_PATTERN, DatasetLayout, read_tasks
from serl_launcher.errors import DatasetError

_LABEL_COLUMNS = (features.EPISODE_ID, features.OUTCOME, "labelled_by")
_PLACE_COLUMNS = (features.EPISODE_INDEX, "length", "data/chunk_index", "data/file_index")
_V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPlace:
    """Where the pictures of one camera of one episode lie."""

    path: Path
    """Relative to the dataset."""
    start_s: float
    """Time in the video at which the episode begins."""


@dataclass(kw_only=True, slots=True)
class EpisodeRow:
    """Metadata of one episode as the dataset stores it."""

    episode_index: int
    length: int
    data_file: Path
    """Relative to the dataset."""
    episode_id: str
    """Empty in datasets that hiors did not write."""
    outcome: str | None
    """None in datasets that hiors did not write."""
    labelled_by: str = ""
    """`human`, `environment`, `classifier`, ...; empty in datasets that hiors did not write."""
    videos: Mapping[str, VideoPlace] = field(default_factory=dict)
    """Feature to video; empty where pictures lie in the data file."""


def metadata_files(root: Path, info: Mapping[str, object]) -> list[Path]:
    """Returns the files that list the episodes, in order."""
    if _is_v2(info):
        return [root / "meta" / "episodes.jsonl"]
    return sorted(DatasetLayout(root).episodes.glob("chunk-*/file-*.parquet"))


def read_prompts(root: Path, info: Mapping[str, object]) -> list[str]:
    """Returns the prompts by task index; raises DatasetError where the file is damaged."""
    if not _is_v2(info):
        return read_tasks(DatasetLayout(root).tasks)
    prompts = {int(line["task_index"]): str(line["task"]) for line in _json_lines(root / "meta" / "tasks.jsonl")}
    return [prompts.get(index, "") for index in range(max(prompts, default=-1) + 1)]


def read_episode_rows(path: Path, info: dict, videos: Sequence[str] = ()) -> list[EpisodeRow]:
    """Returns the rows of one metadata file; raises DatasetError where it is damaged.

    Args:
        path: One of `metadata_files`.
        info: Content of info.json.
        videos: Features that are stored as video.
    """
    try:
        if _is_v2(info):
            return [_v2_row(line, info, videos) for line in _json_lines(path)]
        return [_v3_row(row, info, videos) for row in _parquet_rows(path, videos)]
    except (pa.ArrowException, OSError, KeyError, TypeError) as exc:
        raise DatasetError(f"Expected episode metadata in {path}: {exc!r}. Run tools.replay verify.") from exc


def file_groups(rows: Sequence[EpisodeRow], *, at_least: int) -> Iterator[Sequence[EpisodeRow]]:
    """Yields the rows in order, so many at a time or more: the episodes of one data file stay together."""
    first = 0
    while first < len(rows):
        end = min(first + at_least, len(rows))
        while end < len(rows) and rows[end].data_file == rows[end - 1].data_file:
            end += 1
        yield rows[first:end]
        first = end


def _parquet_rows(path: Path, videos: Sequence[str]) -> list[dict]:
    with pq.ParquetFile(path) as file:
        present = set(file.schema_arrow.names)
        columns = [*_PLACE_COLUMNS, *(name for name in _LABEL_COLUMNS if name in present)]
        for video in videos:
            columns += [f"videos/{video}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        return file.read(columns=columns).to_pylist()


def _v3_row(row: dict, info: dict, videos: Sequence[str]) -> EpisodeRow:
    pattern = info.get("video_path") or VIDEO_PATTERN
    places = {}
    for video in videos:
        chunk, file = row[f"videos/{video}/chunk_index"], row[f"videos/{video}/file_index"]
        path = Path(pattern.format(video_key=video, chunk_index=chunk, file_index=file))
        places[video] = VideoPlace(path=path, start_s=float(row[f"videos/{video}/from_timestamp"]))
    return EpisodeRow(
        episode_index=row[features.EPISODE_INDEX],
        length=row["length"],
        data_file=Path("data") / f"chunk-{row['data/chunk_index']:03d}" / f"file-{row['data/file_index']:03d}.parquet",
        episode_id=row.get(features.EPISODE_ID) or "",
        outcome=row.get(features.OUTCOME),
        labelled_by=row.get("labelled_by") or "",
        videos=places,
    )


def _v2_row(line: dict, info: dict, videos: Sequence[str]) -> EpisodeRow:
    index = int(line[features.EPISODE_INDEX])
    place = {"episode_chunk": index // int(info.get("chunks_size") or 1000), "episode_index": index}
    pattern = info.get("video_path") or _V2_VIDEO
    return EpisodeRow(
        episode_index=index,
        length=int(line["length"]),
        data_file=Path((info.get("data_path") or _V2_DATA).format(**place)),
        episode_id="",
        outcome=None,
        videos={
            video: VideoPlace(path=Path(pattern.format(video_key=video, **place)), start_s=0.0) for video in videos
        },
    )


def _is_v2(info: Mapping[str, object]) -> bool:
    return str(info.get("codebase_version", "")).startswith("v2.")


def _json_lines(path: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as exc:
        raise DatasetError(f"Expected one JSON object per line in {path}: {exc}. Restore the file.") from exc
