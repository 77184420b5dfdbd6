"""Turns a closed episode into the Arrow tables of a LeRobot v3 dataset."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import FILES_PER_CHUNK
from serl_launcher.datasets.statistics import (
    FeatureStatistics,
    flag_statistics,
    image_statistics,
    to_lists,
    vector_statistics,
)
from serl_launcher.errors import DatasetError
from serl_launcher.events import EncodedObservation, StepRecorded, decode_vector
from serl_launcher.images import check_image, decode_image, encode_png
from serl_launcher.journal import EpisodeRecord
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.types import Outcome, Source

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where an episode goes in the dataset."""

    episode_index: int
    first_step: int
    """Dataset-wide index of its first step."""
    data_number: int
    """Number of its data file."""
    metadata_number: int
    """Number of the metadata file that takes its row."""
    task_indices: dict[str, int]
    """Task index of each prompt, at least of those in the episode."""


def check_record(record: EpisodeRecord) -> None:
    """Raises DatasetError where an episode has no steps, their numbers have gaps, or a number does not fit a column."""
    if not record.steps:
        raise DatasetError(f"Episode {record.episode_id!r} has no steps; a LeRobot episode needs one or more.")
    for expected, step in enumerate(record.steps):
        if step.step != expected:
            raise DatasetError(f"Episode {record.episode_id!r}: expected step {expected}, got {step.step}.")
        if step.policy_version not in _INT64:
            raise DatasetError(
                f"Episode {record.episode_id!r}: expected policy_version to fit 64 bits at step {expected}, got "
                f"{step.policy_version}."
            )
    if record.seed is not None and record.seed not in _INT64:
        raise DatasetError(f"Episode {record.episode_id!r}: expected its seed to fit 64 bits, got {record.seed}.")


def check_finite(episode_id: str, feature: str, values: np.ndarray) -> None:
    """Raises DatasetError where a value over time, [T] or [T, width], is not a finite number."""
    if not np.isfinite(values).all():
        step = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise DatasetError(f"Episode {episode_id!r}: {feature} is not finite at step {step}: {values[step]}.")


def steps_table(record: EpisodeRecord, spec: RobotSpec, placement: Placement) -> pa.Table:
    """Returns the content of the episode's data file, one row per step."""
    steps = record.steps
    count = len(steps)
    frame = np.arange(count)
    is_last = frame == count - 1
    terminated = np.array([step.terminated for step in steps])
    truncated = np.array([step.truncated for step in steps])
    prompts = [step.observation.prompt for step in steps]
    columns: dict[str, pa.Array] = {
        features.image_feature(camera.name): image_array([stored_image(step.observation, camera) for step in steps])
        for camera in spec.cameras
    }
    columns |= {
        features.STATE: _vectors([step.observation.state for step in steps], spec.state_dim, "state"),
        features.ACTION: _vectors([step.action for step in steps], spec.action_dim, "action"),
        features.PROPOSAL: _vectors([_proposal(step) for step in steps], spec.action_dim, "proposal"),
        features.HAS_PROPOSAL: pa.array([step.proposal is not None for step in steps]),
        features.REWARD: pa.array([step.reward for step in steps], pa.float32()),
        features.DONE: pa.array(terminated | truncated),
        features.TRUNCATED: pa.array(truncated & ~terminated),
        features.SUCCESS: pa.array(is_last & (record.outcome == Outcome.SUCCESS)),
        features.SOURCE: pa.array([step.source for step in steps], pa.int64()),
        features.POLICY_VERSION: pa.array([step.policy_version for step in steps], pa.int64()),
        features.WALL_TIME: pa.array([step.wall_time_s for step in steps], pa.float64()),
        features.MONOTONIC_TIME: pa.array([step.monotonic_s for step in steps], pa.float64()),
        features.TIMESTAMP: pa.array((frame / spec.control_hz).astype(np.float32)),
        features.FRAME_INDEX: pa.array(frame, pa.int64()),
        features.EPISODE_INDEX: pa.array(np.full(count, placement.episode_index), pa.int64()),
        features.INDEX: pa.array(placement.first_step + frame, pa.int64()),
        features.TASK_INDEX: pa.array([placement.task_indices[prompt] for prompt in prompts], pa.int64()),
    }
    schema = features.data_schema(spec)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def final_table(record: EpisodeRecord, spec: RobotSpec) -> pa.Table:
    """Returns the final observation of an episode: one row."""
    observation = record.final_observation
    columns: list[pa.Array] = [image_array([stored_image(observation, camera)]) for camera in spec.cameras]
    state = decode_vector(observation.state, spec.state_dim, "state")
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(state), spec.state_dim))
    columns.append(pa.array([record.episode_id]))
    return pa.table(columns, schema=features.final_schema(spec))


def episode_statistics(record: EpisodeRecord, spec: RobotSpec, steps: pa.Table) -> dict[str, FeatureStatistics]:
    """Returns the statistics of every summarised feature of one episode."""
    statistics: dict[str, FeatureStatistics] = {}
    for camera in spec.cameras:
        encoded = [step.observation.images[camera.name] for step in record.steps]
        statistics[features.image_feature(camera.name)] = image_statistics(encoded, camera.shape)
    for name in features.summarised_features(spec):
        if name not in statistics:
            values = column_values(steps, name)
            check_finite(record.episode_id, name, values)
            statistics[name] = vector_statistics(values)
    statistics[features.SUCCESS] = flag_statistics(int(record.outcome == Outcome.SUCCESS), len(record.steps))
    return statistics


def episode_table(
    record: EpisodeRecord, spec: RobotSpec, placement: Placement, statistics: dict[str, FeatureStatistics]
) -> pa.Table:
    """Returns the metadata of an episode: one row."""
    data_chunk, data_file = divmod(placement.data_number, FILES_PER_CHUNK)
    metadata_chunk, metadata_file = divmod(placement.metadata_number, FILES_PER_CHUNK)
    count = len(record.steps)
    row: dict[str, object] = {
        features.EPISODE_INDEX: placement.episode_index,
        "tasks": list(dict.fromkeys(step.observation.prompt for step in record.steps)),
        "length": count,
        "data/chunk_index": data_chunk,
        "data/file_index": data_file,
        "dataset_from_index": placement.first_step,
        "dataset_to_index": placement.first_step + count,
        "meta/episodes/chunk_index": metadata_chunk,
        "meta/episodes/file_index": metadata_file,
        features.EPISODE_ID: record.episode_id,
        "actor_id": record.actor_id,
        "seed": record.seed,
        "started_wall_time_s": record.started_wall_time_s,
        "num_intervention_steps": num_intervention_steps([step.source for step in record.steps]),
        "episode_return": float(sum(step.reward for step in record.steps)),
    }
    row |= label_columns(record.outcome, record.labelled_by, record.label_wall_time_s)
    row |= statistics_columns(statistics)
    schema = features.episode_schema(spec)
    return pa.table([pa.array([row[field.name]], field.type) for field in schema], schema=schema)


def label_columns(outcome: Outcome, labelled_by: str, wall_time_s: float) -> dict[str, object]:
    """Returns the metadata columns that a label sets."""
    return {features.OUTCOME: str(outcome), "labelled_by": labelled_by, "label_wall_time_s": wall_time_s}


def statistics_columns(statistics: dict[str, FeatureStatistics]) -> dict[str, object]:
    """Returns statistics as metadata columns, `stats/<feature>/<statistic>`."""
    return {
        f"stats/{feature}/{name}": value
        for feature, values in to_lists(statistics).items()
        for name, value in values.items()
    }


def with_success(steps: pa.Table, episode_index: int, *, is_success: bool) -> pa.Table:
    """Returns a copy of a data file's content in which the last step of one episode says whether it succeeded."""
    rows = np.flatnonzero(column_values(steps, features.EPISODE_INDEX) == episode_index)
    success = column_values(steps, features.SUCCESS).copy()
    success[rows] = False
    success[rows[-1]] = is_success
    position = steps.column_names.index(features.SUCCESS)
    return steps.set_column(position, steps.schema.field(features.SUCCESS), pa.array(success))


def num_intervention_steps(sources: list[int]) -> int:
    """Returns how many steps somebody else commanded in an episode of a policy; 0 in a demonstration."""
    by_policy = sum(source == Source.POLICY for source in sources)
    return len(sources) - by_policy if by_policy else 0


def stored_image(observation: EncodedObservation, camera: CameraSpec) -> bytes:
    """Returns the image as it is stored: JPEG and PNG bytes as recorded, raw pixels as PNG.

    Raises:
        ProtocolError: The bytes are no image of that camera.
    """
    encoded = observation.images[camera.name]
    if camera.encoding == "raw":
        return encode_png(decode_image(encoded, camera.shape))
    check_image(encoded, camera.shape)
    return encoded


def image_array(encoded: list[bytes]) -> pa.Array:
    """Returns encoded images as the struct array that Hugging Face's Image feature expects."""
    return pa.StructArray.from_arrays(
        [pa.array(encoded, pa.binary()), pa.nulls(len(encoded), pa.string())], names=["bytes", "path"]
    )


def column_values(table: pa.Table, name: str) -> np.ndarray:
    """Returns a scalar column as [T] or a vector column as [T, width]; raises DatasetError on nulls."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if column.null_count:
        raise DatasetError(f"Expected no missing values in column {name!r}, got {column.null_count}.")
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)


def _proposal(step: StepRecorded) -> bytes:
    return step.action if step.proposal is None else step.proposal


def _vectors(encoded: list[bytes], width: int, what: str) -> pa.Array:
    if any(len(vector) != 4 * width for vector in encoded):
        raise DatasetError(f"Expected every {what} to have {width} float32, got other lengths.")
    values = pa.array(np.frombuffer(b"".join(encoded), "<f4"))
    return values if width == 1 else pa.FixedSizeListArray.from_arrays(values, width)
