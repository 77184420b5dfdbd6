"""The scalar columns of a LeRobot v3 dataset as numpy arrays: one table of episodes, one of steps.

Legend: E episodes, N steps, S state width, A action width. Step n is the n-th step of the dataset, in recording order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import numbered
from serl_launcher.datasets.tables import column_values, num_intervention_steps
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome, Source

_LABEL_COLUMNS = (features.EPISODE_ID, features.OUTCOME)
_PLACE_COLUMNS = (features.EPISODE_INDEX, "length", "data/chunk_index", "data/file_index")
_OPTIONAL_STEP_COLUMNS = (
    features.REWARD,
    features.DONE,
    features.TRUNCATED,
    features.SUCCESS,
    features.SOURCE,
    features.POLICY_VERSION,
)
_REQUIRED_STEP_COLUMNS = (features.STATE, features.ACTION, features.TASK_INDEX, features.EPISODE_INDEX)


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


def read_episode_rows(path: Path) -> list[EpisodeRow]:
    """Returns the rows of one metadata file; raises DatasetError where it is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            columns = [*_PLACE_COLUMNS, *(name for name in _LABEL_COLUMNS if name in present)]
            rows = file.read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise DatasetError(f"Expected episode metadata in {path}: {exc}. Run tools.replay verify.") from exc
    return [
        EpisodeRow(
            episode_index=row[features.EPISODE_INDEX],
            length=row["length"],
            data_file=Path("data")
            / f"chunk-{row['data/chunk_index']:03d}"
            / f"file-{row['data/file_index']:03d}.parquet",
            episode_id=row.get(features.EPISODE_ID) or "",
            outcome=row.get(features.OUTCOME),
        )
        for row in rows
    ]


def final_observation_file(episode_index: int) -> Path:
    """Returns where hiors keeps an episode's final observation, relative to the dataset."""
    return Path("final_observations") / numbered(episode_index)


def read_episodes(
    path: Path, rows: Sequence[EpisodeRow], *, first_episode: int, first_step: int
) -> tuple[EpisodeTable, StepColumns]:
    """Returns the steps of consecutive episodes that share a data file, and their table.

    Args:
        path: The data file.
        rows: Their metadata, in order.
        first_episode: Row of the first one in the dataset's table of episodes.
        first_step: Dataset-wide number of its first step.

    Raises:
        DatasetError: The file lacks a column, or holds other steps than the metadata says.
    """
    table = _read_steps(path)
    episode_of_row = column_values(table, features.EPISODE_INDEX)
    first_rows = np.searchsorted(episode_of_row, [row.episode_index for row in rows])
    lengths = np.array([row.length for row in rows], np.int64)
    chosen = np.concatenate(
        [np.arange(start, start + length) for start, length in zip(first_rows, lengths, strict=True)]
    )
    expected = np.repeat([row.episode_index for row in rows], lengths)
    if chosen[-1] >= len(episode_of_row) or not np.array_equal(episode_of_row[chosen], expected):
        raise DatasetError(f"{path} does not hold the steps that the metadata of episode {rows[0].episode_index} says.")
    steps = _steps_of(table.take(pa.array(chosen)), np.repeat(first_episode + np.arange(len(rows)), lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    successes = _optional(table, features.SUCCESS, np.zeros(len(table), bool))[chosen]
    episodes = EpisodeTable(
        first_step=first_step + starts,
        length=lengths,
        outcome=np.array(
            [
                row.outcome or (Outcome.SUCCESS if successes[start : start + row.length].any() else Outcome.UNLABELLED)
                for row, start in zip(rows, starts, strict=True)
            ],
            dtype="<U16",
        ),
        episode_return=np.add.reduceat(steps.reward.astype(np.float64), starts),
        num_intervention_steps=np.array(
            [
                num_intervention_steps(steps.source[start : start + length].tolist())
                for start, length in zip(starts, lengths, strict=True)
            ],
            np.int64,
        ),
        has_policy_steps=np.logical_or.reduceat(steps.source == Source.POLICY, starts),
        first_row=first_rows.astype(np.int64),
    )
    return episodes, steps


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


def _read_steps(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            missing = [name for name in _REQUIRED_STEP_COLUMNS if name not in present]
            if missing:
                raise DatasetError(f"Expected columns {missing} in {path}, got {present}.")
            optional = [name for name in _OPTIONAL_STEP_COLUMNS if name in present]
            return file.read(columns=[*_REQUIRED_STEP_COLUMNS, *optional])
    except (pa.ArrowException, OSError) as exc:
        raise DatasetError(f"Expected steps in {path}: {exc}. Run tools.replay verify on the dataset.") from exc


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
