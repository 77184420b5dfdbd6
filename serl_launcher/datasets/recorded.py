"""Reads a sealed episode back as it was recorded; the inverse of `tables`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import FILES_PER_CHUNK, DatasetLayout, read_tasks
from serl_launcher.datasets.tables import column_values
from serl_launcher.errors import DatasetError
from serl_launcher.events import EncodedObservation, StepRecorded
from serl_launcher.journal import EpisodeRecord
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Outcome

_ROW = (
    features.EPISODE_INDEX, "data/chunk_index", "data/file_index", features.EPISODE_ID, "actor_id", "seed",
    features.OUTCOME, "labelled_by", "label_wall_time_s", "started_wall_time_s",
)  # fmt: skip


def read_recorded(root: Path, episode_index: int, spec: RobotSpec) -> EpisodeRecord:
    """Returns one episode of a dataset that hiors wrote, with its newest label.

    Pictures are the bytes that the dataset holds: what the robot sent, but PNG where its camera sends raw pixels.

    Raises:
        DatasetError: There is no such episode, or its files are damaged or were not written by hiors.
    """
    layout = DatasetLayout(root)
    try:
        row = _row(layout, episode_index)
        number = int(row["data/chunk_index"]) * FILES_PER_CHUNK + int(row["data/file_index"])
        steps = _table(layout.data_file(number))
        steps = steps.filter(pa.array(column_values(steps, features.EPISODE_INDEX) == episode_index))
        finals = _table(layout.final_file(number))
        [place] = np.flatnonzero(finals[features.EPISODE_ID].to_numpy() == row[features.EPISODE_ID])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as exc:
        raise DatasetError(f"Expected episode {episode_index} in {root}: {exc!r}. Run tools.replay verify.") from exc
    recorded = _steps(str(row[features.EPISODE_ID]), steps, spec, read_tasks(layout.tasks))
    last_prompt = recorded[-1].observation.prompt
    [final] = _observations(finals.slice(int(place), 1), spec, [last_prompt])
    return EpisodeRecord(
        actor_id=str(row["actor_id"]), episode_id=str(row[features.EPISODE_ID]),
        prompt=recorded[0].observation.prompt, seed=row["seed"], started_wall_time_s=row["started_wall_time_s"],
        steps=recorded, final_observation=final, outcome=Outcome(row[features.OUTCOME]),
        labelled_by=str(row["labelled_by"]), label_wall_time_s=row["label_wall_time_s"],
    )  # fmt: skip


def _row(layout: DatasetLayout, episode_index: int) -> dict:
    for path in sorted(layout.episodes.glob("chunk-*/file-*.parquet"), reverse=True):
        with pq.ParquetFile(path) as file:
            rows = file.read(columns=list(_ROW))
        found = rows.filter(pa.array(column_values(rows, features.EPISODE_INDEX) == episode_index)).to_pylist()
        if found:
            return found[0]
    raise KeyError(f"episode {episode_index}")


def _table(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()


def _steps(episode_id: str, steps: pa.Table, spec: RobotSpec, tasks: Sequence[str]) -> list[StepRecorded]:
    prompts = [tasks[int(task)] for task in column_values(steps, features.TASK_INDEX)]
    scalars = {
        name: column_values(steps, name).tolist()
        for name in (features.REWARD, features.DONE, features.TRUNCATED, features.SOURCE, features.POLICY_VERSION,
                     features.WALL_TIME, features.MONOTONIC_TIME, features.HAS_PROPOSAL)
    }  # fmt: skip
    actions, proposals = _vectors(steps, features.ACTION), _vectors(steps, features.PROPOSAL)
    return [
        StepRecorded(
            episode_id=episode_id, step=number, observation=observation, action=actions[number],
            reward=scalars[features.REWARD][number],
            terminated=scalars[features.DONE][number] and not scalars[features.TRUNCATED][number],
            truncated=scalars[features.TRUNCATED][number], source=scalars[features.SOURCE][number],
            policy_version=scalars[features.POLICY_VERSION][number],
            wall_time_s=scalars[features.WALL_TIME][number], monotonic_s=scalars[features.MONOTONIC_TIME][number],
            proposal=proposals[number] if scalars[features.HAS_PROPOSAL][number] else None,
        )
        for number, observation in enumerate(_observations(steps, spec, prompts))
    ]  # fmt: skip


def _observations(table: pa.Table, spec: RobotSpec, prompts: Sequence[str]) -> list[EncodedObservation]:
    pictures = {
        camera.name: [each["bytes"] for each in table[features.image_feature(camera.name)].to_pylist()]
        for camera in spec.cameras
    }
    states = _vectors(table, features.STATE)
    return [
        EncodedObservation({name: taken[number] for name, taken in pictures.items()}, states[number], prompt)
        for number, prompt in enumerate(prompts)
    ]


def _vectors(table: pa.Table, name: str) -> list[bytes]:
    return [row.tobytes() for row in column_values(table, name).astype("<f4").reshape(len(table), -1)]
