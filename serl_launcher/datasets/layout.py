"""Where the files of a LeRobot v3 dataset lie, and how one is replaced so that a reader never sees a part.

meta/info.json                              counts and features; written last, so that it vouches for the rest
meta/robot_spec.json                        the robot (ours; LeRobot ignores it)
meta/pinned.txt                             episodes that stay in the sampling window (ours; where there are any)
meta/stats.json  meta/tasks.parquet
meta/episodes/chunk-000/file-000.parquet    one row per episode, many rows
data/chunk-000/file-000.parquet             steps of one episode, of several after tools.replay compact; images inside
final_observations/chunk-000/file-000.parquet   what was seen after the last step of each episode in the data file of
                                            that number (ours; LeRobot ignores it)
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets.features import lerobot_features
from serl_launcher.errors import DatasetError
from serl_launcher.files import StagedFiles
from serl_launcher.specs import RobotSpec

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_PATTERN = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATTERN = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def dataset_path(name: str) -> Path:
    """Returns the directory of a dataset given as a path, or as a name below HF_LEROBOT_HOME."""
    path = Path(name).expanduser()
    if path.exists():
        return path.absolute()
    home = Path(os.environ.get("HF_LEROBOT_HOME", "~/.cache/huggingface/lerobot")).expanduser()
    return path.absolute() if path.is_absolute() or not (home / name).exists() else (home / name).absolute()


@dataclass(frozen=True, slots=True)
class DatasetLayout:
    """Paths of one dataset; nothing is created by asking for one."""

    root: Path

    @property
    def info(self) -> Path:
        """Counts and features."""
        return self.root / "meta" / "info.json"

    @property
    def stats(self) -> Path:
        """Statistics over the whole dataset."""
        return self.root / "meta" / "stats.json"

    @property
    def tasks(self) -> Path:
        """Prompt of each task index."""
        return self.root / "meta" / "tasks.parquet"

    @property
    def robot_spec(self) -> Path:
        """The robot that recorded the dataset."""
        return self.root / "meta" / "robot_spec.json"

    @property
    def pinned(self) -> Path:
        """Ids of the episodes that stay in the sampling window, one a line (ours; LeRobot ignores it)."""
        return self.root / "meta" / "pinned.txt"

    @property
    def episodes(self) -> Path:
        """Folder of the episode metadata."""
        return self.root / "meta" / "episodes"

    @property
    def set_aside(self) -> Path:
        """Folder of files that a crash left unfinished."""
        return self.root / "set_aside"

    def data_file(self, number: int) -> Path:
        """A file of steps."""
        return self.root / "data" / numbered(number)

    def metadata_file(self, number: int) -> Path:
        """A file of episode metadata."""
        return self.episodes / numbered(number)

    def final_file(self, number: int) -> Path:
        """The final observations of the episodes in the data file of that number."""
        return self.root / "final_observations" / numbered(number)


def numbered(number: int) -> Path:
    """Returns `chunk-CCC/file-FFF.parquet`, the name of a file by its number in the dataset."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return Path(f"chunk-{chunk:03d}") / f"file-{file:03d}.parquet"


def read_json(path: Path) -> dict:
    """Returns a JSON object; raises DatasetError where the file is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as exc:
        raise DatasetError(f"Expected JSON in {path}: {exc}. Restore the file or run tools.replay verify.") from exc
    if not isinstance(content, dict):
        raise DatasetError(f"Expected a JSON object in {path}, got {type(content).__name__}.")
    return content


def read_info(root: Path, *, versions: tuple[str, ...] = ("v3.",)) -> dict:
    """Returns info.json of a LeRobot dataset.

    Args:
        root: Directory of the dataset.
        versions: How the format's version may begin.

    Raises:
        DatasetError: There is no dataset, it is damaged or of another version.
    """
    path = DatasetLayout(root).info
    if not path.exists():
        raise DatasetError(f"Expected a LeRobot v3 dataset in {root}, found no meta/info.json. Check the path.")
    info = read_json(path)
    if not str(info.get("codebase_version", "")).startswith(versions):
        raise DatasetError(
            f"Expected LeRobot format {' or '.join(versions)}x in {root}, got {info.get('codebase_version')!r}. "
            "Convert it with lerobot.datasets.v30.convert_dataset_v21_to_v30."
        )
    return info


def info_content(spec: RobotSpec, *, num_episodes: int, num_steps: int, num_tasks: int) -> dict[str, object]:
    """Returns what info.json says of a dataset that hiors wrote."""
    rate = spec.control_hz
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": spec.name,
        "total_episodes": num_episodes,
        "total_frames": num_steps,
        "total_tasks": num_tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{num_episodes}"},
        "data_path": DATA_PATTERN,
        "video_path": None,
        "features": lerobot_features(spec),
    }


def stage_parquet(files: StagedFiles, path: Path, table: pa.Table, *, statistics: list[str] | None = None) -> None:
    """Stages a parquet file of uncompressed, plainly encoded pages.

    Args:
        files: Takes it.
        path: Where it goes; missing folders are made.
        table: Its content, written as one row group.
        statistics: Columns with minimum and maximum in the footer, by which readers skip files. Never images: the
            footer would hold copies of them.
    """
    pq.write_table(
        table,
        files.add(path),
        row_group_size=max(len(table), 1),
        compression="none",
        use_dictionary=False,
        write_statistics=statistics or False,  # pyright: ignore[reportArgumentType] - The stub omits lists.
    )
    files.written(path)


def write_parquet(path: Path, table: pa.Table, *, statistics: list[str] | None = None) -> None:
    """Replaces a parquet file atomically, synced before the rename; see `stage_parquet`."""
    with StagedFiles() as files:
        stage_parquet(files, path, table, statistics=statistics)
        files.sync()
        files.name(path)


def tasks_table(prompts: list[str]) -> pa.Table:
    """Returns tasks.parquet: task indices, with the prompts as the pandas index that LeRobot looks for."""
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    index = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [{**index, "metadata": {"encoding": "UTF-8"}}],
        "columns": [{**column, "metadata": None} for column in columns],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    schema = pa.schema(
        [pa.field("task_index", pa.int64()), pa.field("__index_level_0__", pa.string())],
        {"pandas": json.dumps(pandas)},
    )
    return pa.table([pa.array(range(len(prompts)), pa.int64()), pa.array(prompts, pa.string())], schema=schema)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a file of a dataset that may still be growing, as it was at one moment.

    pyarrow's own `read_table` opens a path twice, for the footer and for the pages. Files are replaced whole under
    their names, so that the second may belong to another file than the first.
    """
    with pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_tasks(path: Path) -> list[str]:
    """Returns the prompts of a tasks.parquet, ours or LeRobot's, by task index."""
    table = read_table(path)
    prompt_column = next((name for name in ("__index_level_0__", "task") if name in table.column_names), None)
    if prompt_column is None or "task_index" not in table.column_names:
        raise DatasetError(f"Expected columns task_index and the task in {path}, got {table.column_names}.")
    pairs = zip(table["task_index"].to_pylist(), table[prompt_column].to_pylist(), strict=True)
    prompts = dict(pairs)
    return [prompts[index] for index in range(len(prompts))]
