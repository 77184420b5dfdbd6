"""The scalar columns of a LeRobot v3 dataset as numpy arrays: one table of episodes, one of steps.

Legend: E episodes, N steps, S state width, A action width. Step n is the n-th step of the dataset, in recording order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from learner.replay.episode_rows import EpisodeRow
from serl_launcher.datasets import features
from serl_launcher.datasets.tables import column_values
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome, Source

_OPTIONAL_STEP_COLUMNS = (
    features.REWARD,
    features.DONE,
    features.TRUNCATED,
    features.SUCCESS,
    features.SOURCE,
    features.POLICY_VERSION,
)
_FILE_NUMBER = "__fragment_index"
_SCANS = 5
"""A scan opens each file twice; a late label that replaces one in between makes it fail, and the next one succeed."""
"""Column that a scan adds: which of its files a row is from."""
_REQUIRED_STEP_COLUMNS = (features.STATE, features.ACTION, features.TASK_INDEX, features.EPISODE_INDEX)

PERSON = "human"
"""Who labelled an episode that a person judged."""


@dataclass(kw_only=True, slots=True)
class EpisodeTable:
    """One value per episode, in recording order."""

    first_step: np.ndarray
    """int64 [E]."""
    length: np.ndarray
    """Steps, int64 [E]."""
    outcome: np.ndarray
    """Newest label, a `serl_launcher.types.Outcome` as str [E]."""
    episode_return: np.ndarray
    """Sum of rewards, float64 [E]."""
    num_intervention_steps: np.ndarray
    """Steps commanded by somebody else in episodes that the policy acted in, int64 [E]; 0 in demonstrations."""
    has_policy_steps: np.ndarray
    """Whether a policy acted at all, bool [E]; False in demonstrations."""
    is_judged_by_person: np.ndarray
    """Whether the outcome is a person's word, during the episode or later, bool [E]."""
    is_terminated: np.ndarray
    """Whether the task ended with its last step, and was not cut off, bool [E]."""
    first_row: np.ndarray
    """Row of the first step in its data file, int64 [E]."""

    def __len__(self) -> int:
        """Returns the number of episodes, E."""
        return len(self.length)


@dataclass(kw_only=True, slots=True)
class StepColumns:
    """One value per step, in recording order."""

    state: np.ndarray
    """float32 [N, S]."""
    action: np.ndarray
    """Executed action, float32 [N, A], robot units."""
    reward: np.ndarray
    """float32 [N]."""
    is_terminal: np.ndarray
    """bool [N]; the task ended with this step (a time limit does not count)."""
    source: np.ndarray
    """Who chose the action, a `serl_launcher.types.Source`, int8 [N]."""
    policy_version: np.ndarray
    """int64 [N]; -1 where no policy was asked."""
    task_index: np.ndarray
    """int64 [N]."""
    episode: np.ndarray
    """Row in the table of episodes, int64 [N]."""

    def __len__(self) -> int:
        """Returns the number of steps, N."""
        return len(self.reward)


def join(parts: Sequence[EpisodeTable] | Sequence[StepColumns]) -> EpisodeTable | StepColumns:
    """Returns one table of all rows, in order."""
    kind = type(parts[0])
    return kind(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(kind)})


def read_episodes(
    root: Path, rows: Sequence[EpisodeRow], *, first_episode: int, first_step: int
) -> tuple[EpisodeTable, StepColumns]:
    """Returns the steps of consecutive episodes, and their table.

    Args:
        root: The dataset.
        rows: Their metadata, in order.
        first_episode: Row of the first one in the dataset's table of episodes.
        first_step: Dataset-wide number of its first step.

    Raises:
        DatasetError: A file lacks a column, or holds other steps than the metadata says.
    """
    files = list(dict.fromkeys(row.data_file for row in rows))
    table, file_starts = _read_steps(root, files)
    number_of_file = {file: number for number, file in enumerate(files)}
    starts_in_table = np.empty(len(rows), np.int64)
    first_rows = np.empty(len(rows), np.int64)
    episode_of_row = column_values(table, features.EPISODE_INDEX)
    for row_number, row in enumerate(rows):
        number = number_of_file[row.data_file]
        start, end = file_starts[number], file_starts[number + 1]
        first_rows[row_number] = np.searchsorted(episode_of_row[start:end], row.episode_index)
        starts_in_table[row_number] = start + first_rows[row_number]
    lengths = np.array([row.length for row in rows], np.int64)
    starts = np.cumsum(lengths) - lengths
    chosen = np.repeat(starts_in_table - starts, lengths) + np.arange(lengths.sum())
    _check_rows(root, rows, episode_of_row, chosen, starts)
    if len(chosen) != len(table) or (np.diff(chosen) != 1).any():
        table = table.take(pa.array(chosen))
    steps = _steps_of(table, np.repeat(first_episode + np.arange(len(rows)), lengths))
    return _episodes_of(rows, table, steps, starts, first_step=first_step, first_rows=first_rows), steps


def _check_rows(
    root: Path, rows: Sequence[EpisodeRow], episode_of_row: np.ndarray, chosen: np.ndarray, starts: np.ndarray
) -> None:
    """Raises DatasetError where the chosen rows of the table are not of the episodes that the metadata names."""
    lengths = [row.length for row in rows]
    expected = np.repeat([row.episode_index for row in rows], lengths)
    is_right = chosen < len(episode_of_row)
    is_right[is_right] &= episode_of_row[chosen[is_right]] == expected[is_right]
    if not is_right.all():
        wrong = rows[int(np.searchsorted(starts, np.argmin(is_right), side="right")) - 1]
        raise DatasetError(
            f"{root / wrong.data_file} does not hold the steps that the metadata of episode {wrong.episode_index} "
            "says. Run tools.replay verify on the dataset."
        )


def _episodes_of(
    rows: Sequence[EpisodeRow], table: pa.Table, steps: StepColumns, starts: np.ndarray, *, first_step: int,
    first_rows: np.ndarray,
) -> EpisodeTable:  # fmt: skip
    """Returns one value per episode; `starts` says where each begins in `table` and `steps`."""
    has_success = np.logical_or.reduceat(_optional(table, features.SUCCESS, np.zeros(len(table), bool)), starts)
    by_policy = steps.source == Source.POLICY
    has_policy_steps = np.logical_or.reduceat(by_policy, starts)
    return EpisodeTable(
        first_step=first_step + starts,
        length=np.array([row.length for row in rows], np.int64),
        outcome=np.array(
            [
                row.outcome or (Outcome.SUCCESS if is_success else Outcome.UNLABELLED)
                for row, is_success in zip(rows, has_success, strict=True)
            ],
            dtype="<U16",
        ),
        episode_return=np.add.reduceat(steps.reward.astype(np.float64), starts),
        num_intervention_steps=np.where(has_policy_steps, np.add.reduceat((~by_policy).astype(np.int64), starts), 0),
        has_policy_steps=has_policy_steps,
        is_judged_by_person=np.array([row.labelled_by == PERSON for row in rows], bool),
        is_terminated=np.logical_or.reduceat(steps.is_terminal, starts),
        first_row=first_rows,
    )


def empty_tables(state_dim: int, action_dim: int) -> tuple[EpisodeTable, StepColumns]:
    """Returns tables without rows."""
    whole = np.zeros(0, np.int64)
    flags = np.zeros(0, bool)
    episodes = EpisodeTable(
        first_step=whole,
        length=whole,
        outcome=np.zeros(0, "<U16"),
        episode_return=np.zeros(0),
        num_intervention_steps=whole,
        has_policy_steps=flags,
        is_judged_by_person=flags,
        is_terminated=flags,
        first_row=whole,
    )
    steps = StepColumns(
        state=np.zeros((0, state_dim), np.float32),
        action=np.zeros((0, action_dim), np.float32),
        reward=np.zeros(0, np.float32),
        is_terminal=flags,
        source=np.zeros(0, np.int8),
        policy_version=whole,
        task_index=whole,
        episode=whole,
    )
    return episodes, steps


def _read_steps(root: Path, files: Sequence[Path]) -> tuple[pa.Table, np.ndarray]:
    """Returns the scalar columns of several data files, and at which row each file begins, int64 [files + 1].

    Many small files are one scan, which spares most of the time that opening each would take.
    """
    try:
        with pq.ParquetFile(root / files[0]) as file:
            schema = file.schema_arrow
        missing = [name for name in _REQUIRED_STEP_COLUMNS if name not in schema.names]
        if missing:
            raise DatasetError(f"Expected columns {missing} in {root / files[0]}, got {schema.names}.")
        names = [*_REQUIRED_STEP_COLUMNS, *(name for name in _OPTIONAL_STEP_COLUMNS if name in schema.names)]
        wanted = pa.schema([schema.field(name) for name in names])
        table = _scan([str(root / file) for file in files], wanted)
        pa.default_memory_pool().release_unused()  # Footers and buffers of hundreds of files.
    except (pa.ArrowException, OSError) as exc:
        raise DatasetError(f"Expected steps in {root}: {exc}. Run tools.replay verify on the dataset.") from exc
    counts = np.bincount(table[_FILE_NUMBER].to_numpy(), minlength=len(files))
    return table.drop_columns([_FILE_NUMBER]), np.concatenate([[0], np.cumsum(counts)])


def _scan(paths: list[str], wanted: pa.Schema) -> pa.Table:
    for _ in range(_SCANS - 1):
        try:
            return _scan_once(paths, wanted)
        except (pa.ArrowException, OSError):
            continue
    return _scan_once(paths, wanted)


def _scan_once(paths: list[str], wanted: pa.Schema) -> pa.Table:
    return ds.dataset(paths, schema=wanted, format="parquet").to_table(columns=[*wanted.names, _FILE_NUMBER])


def _steps_of(table: pa.Table, episode: np.ndarray) -> StepColumns:
    count = len(table)
    done = _optional(table, features.DONE, np.zeros(count, bool))
    truncated = _optional(table, features.TRUNCATED, np.zeros(count, bool))
    return StepColumns(
        state=column_values(table, features.STATE).astype(np.float32).reshape(count, -1),
        action=column_values(table, features.ACTION).astype(np.float32).reshape(count, -1),
        reward=_optional(table, features.REWARD, np.zeros(count)).astype(np.float32),
        is_terminal=done & ~truncated,
        source=_optional(table, features.SOURCE, np.full(count, Source.HUMAN)).astype(np.int8),
        policy_version=_optional(table, features.POLICY_VERSION, np.full(count, -1)).astype(np.int64),
        task_index=column_values(table, features.TASK_INDEX),
        episode=episode.astype(np.int64),
    )


def _optional(table: pa.Table, name: str, default: np.ndarray) -> np.ndarray:
    if name not in table.column_names:
        return default
    values = column_values(table, name)
    return values.reshape(len(table)) if values.ndim > 1 else values
