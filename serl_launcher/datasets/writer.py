"""Writes closed episodes as a LeRobot v3 dataset that stock LeRobot opens at every moment.

Each file is finished before it gets its name, and info.json, which says how many episodes count, comes last:

    final observation -> steps -> tasks -> episode metadata -> statistics -> info.json

A crash anywhere leaves a dataset with the old count; the next start finishes the episode or puts its files aside.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets import features, recovery, tables
from serl_launcher.datasets.layout import (
    CODEBASE_VERSION,
    DATA_PATTERN,
    FILES_PER_CHUNK,
    DatasetLayout,
    read_info,
    read_json,
    read_tasks,
    tasks_table,
    write_parquet,
)
from serl_launcher.datasets.statistics import FeatureStatistics, aggregate, flag_statistics, from_lists, to_lists
from serl_launcher.errors import DatasetError, SpecMismatch
from serl_launcher.events import EpisodeLabelled
from serl_launcher.files import sync_directory, write_atomic
from serl_launcher.journal import EpisodeRecord
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)

_SKIPPABLE = [features.EPISODE_INDEX, features.INDEX, features.FRAME_INDEX, features.TASK_INDEX]


def _ignore(_stage: str) -> None:
    """Does nothing when a stage of writing is reached."""


@dataclass(slots=True)
class _Stored:
    """What the writer remembers of an episode in the dataset."""

    episode_index: int
    outcome: str
    labelled_by: str


class DatasetWriter:
    """The one writer of a dataset; not safe for two threads or processes.

    Opening it repairs what a crash left behind (`recover`).
    """

    def __init__(self, root: Path, spec: RobotSpec, *, reached: Callable[[str], None] = _ignore) -> None:
        """Opens or begins the dataset in `root`; nothing is created before the first episode.

        Args:
            root: Directory of the dataset.
            spec: The robot; must be the one that recorded what is already there.
            reached: Called with the name of each stage once it is on disk; tests kill the process in it.

        Raises:
            SpecMismatch: The dataset is another robot's.
            DatasetError: The dataset is damaged beyond what a crash leaves.
        """
        self.spec = spec
        self.layout = DatasetLayout(root)
        self._reached = reached
        self._episodes: dict[str, _Stored] = {}
        self._prompts: list[str] = []
        self._statistics: dict[str, FeatureStatistics] = {}
        self._is_writing = False
        self.num_steps = 0
        self.recover()

    @property
    def num_episodes(self) -> int:
        """Episodes in the dataset."""
        return len(self._episodes)

    def index_of(self, episode_id: str) -> int | None:
        """Returns the episode index of an episode id, or None where it is not in the dataset."""
        stored = self._episodes.get(episode_id)
        return None if stored is None else stored.episode_index

    def outcome_of(self, episode_id: str) -> Outcome | None:
        """Returns the label of an episode as the dataset has it, or None where the episode is not in the dataset."""
        stored = self._episodes.get(episode_id)
        return None if stored is None else Outcome(stored.outcome)

    def append(self, record: EpisodeRecord) -> int:
        """Adds a closed episode and returns its index; an episode that is there already only gets its label.

        Raises:
            DatasetError: The episode has no steps or has gaps.
            ProtocolError: An image or a vector does not fit the robot.
        """
        self._repair()
        stored = self._episodes.get(record.episode_id)
        if stored is not None:
            self._relabel(stored, record.outcome, record.labelled_by, record.label_wall_time_s)
            return stored.episode_index
        tables.check_record(record)
        prompts = list(dict.fromkeys([*self._prompts, *(step.observation.prompt for step in record.steps)]))
        placement = tables.Placement(
            episode_index=self.num_episodes,
            first_step=self.num_steps,
            task_indices={prompt: index for index, prompt in enumerate(prompts)},
        )
        self._is_writing = True
        statistics = self._write_files(record, placement, prompts)
        self._episodes[record.episode_id] = _Stored(self.num_episodes, str(record.outcome), record.labelled_by)
        self.num_steps += len(record.steps)
        self._prompts = prompts
        self._statistics = {
            feature: aggregate([self._statistics[feature], values]) if feature in self._statistics else values
            for feature, values in statistics.items()
        }
        self._write_counts()
        self._is_writing = False
        return placement.episode_index

    def relabel(self, episode_id: str, label: EpisodeLabelled) -> None:
        """Applies a late or corrected label; the same label again changes nothing.

        Raises:
            DatasetError: The dataset has no such episode.
        """
        self._repair()
        stored = self._episodes.get(episode_id)
        if stored is None:
            raise DatasetError(f"Expected episode {episode_id!r} in {self.layout.root}, found none to label.")
        self._relabel(stored, label.outcome, label.labelled_by, label.wall_time_s)

    def recover(self) -> None:
        """Reads the dataset, adopts an episode that only lacks statistics and counts, puts other leftovers aside."""
        self._is_writing = False
        recovery.remove_temporary_files(self.layout)
        num_vouched = 0
        if self.layout.info.exists():
            self._check_spec()
            num_vouched = int(read_info(self.layout.root)["total_episodes"])
        num_found = recovery.count_complete(self.layout, num_vouched)
        recovery.set_aside_beyond(self.layout, num_found)
        rows = recovery.read_rows(self.layout, num_found)
        self._episodes = {
            row[features.EPISODE_ID]: _Stored(index, row[features.OUTCOME], row["labelled_by"])
            for index, row in enumerate(rows)
        }
        self.num_steps = rows[-1]["dataset_to_index"] if rows else 0
        self._prompts = read_tasks(self.layout.tasks) if rows else []
        if not rows:
            return
        if num_found == num_vouched and self.layout.stats.exists():
            stored = read_json(self.layout.stats)
            self._statistics = from_lists(stored)
            if stored.get(features.SUCCESS) == to_lists({"": self._success_statistics()})[""]:
                return
        logger.info("Dataset %s: finishing what a crash left open.", self.layout.root)
        self._statistics = recovery.aggregate_rows(self.layout, num_found)
        self._write_counts()

    def _repair(self) -> None:
        """Starts over from what is on disk where the last write was interrupted by an error, e.g. a full disk."""
        if self._is_writing:
            self.recover()

    def _write_files(
        self, record: EpisodeRecord, placement: tables.Placement, prompts: list[str]
    ) -> dict[str, FeatureStatistics]:
        """Writes everything of an episode that comes before the dataset's statistics; returns the episode's."""
        index = placement.episode_index
        write_parquet(self.layout.final_file(index), tables.final_table(record, self.spec))
        self._reached("final")
        steps = tables.steps_table(record, self.spec, placement)
        write_parquet(self.layout.data_file(index), steps, statistics=_SKIPPABLE)
        self._reached("steps")
        if len(prompts) != len(self._prompts) or not self.layout.tasks.exists():
            write_parquet(self.layout.tasks, tasks_table(prompts))
            write_atomic(self.layout.robot_spec, msgspec.json.format(msgspec.json.encode(self.spec)))
            self._reached("tasks")
        statistics = tables.episode_statistics(record, self.spec, steps)
        write_parquet(self.layout.episode_file(index), tables.episode_table(record, self.spec, placement, statistics))
        for path in (self.layout.final_file(index), self.layout.data_file(index), self.layout.episode_file(index)):
            sync_directory(path.parent)
        self._reached("episode")
        return statistics

    def _relabel(self, stored: _Stored, outcome: Outcome, labelled_by: str, wall_time_s: float) -> None:
        if (stored.outcome, stored.labelled_by) == (str(outcome), labelled_by):
            return
        self._is_writing = True
        index = stored.episode_index
        row = pq.read_table(self.layout.episode_file(index))
        length = row["length"][0].as_py()
        is_success = outcome == Outcome.SUCCESS
        if is_success != (stored.outcome == Outcome.SUCCESS):
            steps = pq.ParquetFile(self.layout.data_file(index)).read()
            success = pa.array([is_success and step == length - 1 for step in range(length)])
            steps = tables.replace_columns(steps, {features.SUCCESS: success})
            write_parquet(self.layout.data_file(index), steps, statistics=_SKIPPABLE)
            self._reached("relabel_steps")
        values = tables.label_columns(outcome, labelled_by, wall_time_s)
        values |= tables.statistics_columns({features.SUCCESS: flag_statistics(int(is_success), length)})
        arrays = {name: pa.array([value], row.schema.field(name).type) for name, value in values.items()}
        write_parquet(self.layout.episode_file(index), tables.replace_columns(row, arrays))
        self._reached("relabel_episode")
        stored.outcome, stored.labelled_by = str(outcome), labelled_by
        self._write_counts()
        self._is_writing = False

    def _success_statistics(self) -> FeatureStatistics:
        num_successes = sum(stored.outcome == Outcome.SUCCESS for stored in self._episodes.values())
        return flag_statistics(num_successes, self.num_steps)

    def _write_counts(self) -> None:
        """Writes statistics, then info.json, which tells readers that something changed."""
        self._statistics[features.SUCCESS] = self._success_statistics()
        write_atomic(self.layout.stats, json.dumps(to_lists(self._statistics), indent=4).encode())
        self._reached("statistics")
        rate = self.spec.control_hz
        info = {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self.spec.name,
            "total_episodes": self.num_episodes,
            "total_frames": self.num_steps,
            "total_tasks": len(self._prompts),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(rate) if rate == int(rate) else rate,
            "splits": {"train": f"0:{self.num_episodes}"},
            "data_path": DATA_PATTERN,
            "video_path": None,
            "features": features.lerobot_features(self.spec),
        }
        write_atomic(self.layout.info, json.dumps(info, indent=4).encode())
        self._reached("info")

    def _check_spec(self) -> None:
        path = self.layout.robot_spec
        if not path.exists():
            raise DatasetError(f"{self.layout.root} was not recorded by hiors. Choose another dataset.replay_name.")
        theirs = msgspec.json.decode(path.read_bytes(), type=RobotSpec)
        if theirs.digest() != self.spec.digest():
            raise SpecMismatch(
                f"{self.layout.root} was recorded by robot {theirs.name!r} ({theirs.digest()[:8]}), this is "
                f"{self.spec.name!r} ({self.spec.digest()[:8]}). "
                "Use another unique_identifier or the same robot config."
            )
