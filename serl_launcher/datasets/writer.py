"""Writes closed episodes as a LeRobot v3 dataset that stock LeRobot opens at every moment.

Each file is finished before it gets its name, and info.json, which says how many episodes count, comes last:

    final observation -> steps -> tasks -> episode metadata -> statistics -> info.json

A crash anywhere leaves a dataset with the old count; the next start finishes the episode or puts its files aside.

What is synced when: all files of an episode are forced to disk side by side before the first gets its name, and the
names of all but the last two before `append` returns. After a power cut statistics and info.json may be the former
ones; the next start then counts the episode, as after any crash.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from serl_launcher.datasets import features, recovery, tables
from serl_launcher.datasets.layout import (
    DatasetLayout,
    info_content,
    read_info,
    read_json,
    read_table,
    read_tasks,
    stage_parquet,
    tasks_table,
)
from serl_launcher.datasets.metadata import EpisodeMetadata, StoredEpisode
from serl_launcher.datasets.statistics import (
    FeatureStatistics,
    aggregate,
    flag_statistics,
    from_lists,
    is_finite,
    to_lists,
)
from serl_launcher.errors import DatasetError, SpecMismatch
from serl_launcher.events import EpisodeLabelled
from serl_launcher.files import StagedFiles, make_directory, sync_directories
from serl_launcher.journal import EpisodeRecord
from serl_launcher.specs import RobotSpec
from serl_launcher.storage import DirectoryLock
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)

_SKIPPABLE = [features.EPISODE_INDEX, features.INDEX, features.FRAME_INDEX, features.TASK_INDEX]


def _ignore(_stage: str) -> None:
    """Does nothing when a stage of writing is reached."""


class DatasetWriter:
    """The one writer of a dataset, used by one thread at a time; a second one is refused while it lives.

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
            DatasetError: Another writer uses the dataset, or it is damaged beyond what a crash leaves.
        """
        self.spec = spec
        self.layout = DatasetLayout(root)
        self._reached = reached
        self._metadata = EpisodeMetadata(self.layout)
        self._metadata_schema = features.episode_schema(spec)
        self._episodes: dict[str, StoredEpisode] = {}
        self._next_data_number = 0
        self._prompts: list[str] = []
        self._statistics: dict[str, FeatureStatistics] = {}
        self._is_writing = False
        self._lock: DirectoryLock | None = None
        self.num_steps = 0
        if root.exists():
            self._lock = DirectoryLock(root, error=DatasetError)
        self.recover()

    def close(self) -> None:
        """Lets another writer in; may be called twice. Nothing may be written afterwards."""
        if self._lock is not None:
            self._lock.release()

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
            DatasetError: The episode has no steps or has gaps, or another writer uses the dataset.
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
            data_number=self._next_data_number,
            metadata_number=self._metadata.next_number(self._metadata_schema),
            task_indices={prompt: index for index, prompt in enumerate(prompts)},
        )
        self._is_writing = True
        with StagedFiles() as files:
            own = self._stage_episode(files, record, placement, prompts)
            files.sync()
            for stage, path in own:
                files.name(path)
                self._reached(stage)
            sync_directories(path.parent for _, path in own)
            self._name_counts(files)
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
        episodes = recovery.complete_episodes(self.layout, self._metadata, num_vouched)
        self._next_data_number = max((each.data_number for each in episodes), default=-1) + 1
        recovery.set_aside_beyond(self.layout, self._next_data_number)
        self._episodes = {each.episode_id: each for each in episodes}
        self.num_steps = episodes[-1].first_step + episodes[-1].length if episodes else 0
        self._prompts = read_tasks(self.layout.tasks) if episodes else []
        self._statistics = {}
        if not episodes:
            return
        if len(episodes) == num_vouched and self.layout.stats.exists():
            stored = read_json(self.layout.stats)
            self._statistics = from_lists(stored)
            is_whole = all(is_finite(statistics) for statistics in self._statistics.values())
            if is_whole and stored.get(features.SUCCESS) == to_lists({"": self._success_statistics()})[""]:
                return
        logger.info("Dataset %s: finishing what a crash left open.", self.layout.root)
        self._statistics = recovery.aggregate_rows(self.layout, len(episodes))
        with StagedFiles() as files:
            self._stage_counts(files)
            files.sync()
            self._name_counts(files)

    def _repair(self) -> None:
        """Starts over from what is on disk where the last write was interrupted by an error, e.g. a full disk."""
        if self._lock is None:  # The first episode makes the directory; somebody else may have made it meanwhile.
            make_directory(self.layout.root)
            self._lock = DirectoryLock(self.layout.root, error=DatasetError)
            self.recover()
        if self._is_writing:
            # They are this writer's own, and the caller still has the episode: copies would only fill the disk.
            recovery.remove_beyond(self.layout, self._metadata)
            self.recover()

    def _stage_episode(
        self, files: StagedFiles, record: EpisodeRecord, placement: tables.Placement, prompts: list[str]
    ) -> list[tuple[str, Path]]:
        """Writes everything of an episode under temporary names; returns stages and paths in the order of naming."""
        number = placement.data_number
        steps = tables.steps_table(record, self.spec, placement)
        # The largest file first: the disk writes it while the pictures are summarised.
        stage_parquet(files, self.layout.data_file(number), steps, statistics=_SKIPPABLE)
        stage_parquet(files, self.layout.final_file(number), tables.final_table(record, self.spec))
        named = [("final", self.layout.final_file(number)), ("steps", self.layout.data_file(number))]
        if len(prompts) != len(self._prompts) or not self.layout.tasks.exists():
            files.write(self.layout.robot_spec, msgspec.json.format(msgspec.json.encode(self.spec)))
            stage_parquet(files, self.layout.tasks, tasks_table(prompts))
            named += [("robot", self.layout.robot_spec), ("tasks", self.layout.tasks)]
        statistics = tables.episode_statistics(record, self.spec, steps)
        row = tables.episode_table(record, self.spec, placement, statistics)
        named.append(("episode", self._metadata.append(row, files)))
        self._episodes[record.episode_id] = _stored(record, placement)
        self.num_steps += len(record.steps)
        self._next_data_number += 1
        self._prompts = prompts
        self._statistics = {
            feature: aggregate([self._statistics[feature], values]) if feature in self._statistics else values
            for feature, values in statistics.items()
        }
        self._stage_counts(files)
        return named

    def _relabel(self, stored: StoredEpisode, outcome: Outcome, labelled_by: str, wall_time_s: float) -> None:
        path, is_success = self.layout.data_file(stored.data_number), outcome == Outcome.SUCCESS
        # After a crash between the two, steps and metadata may say different things.
        is_marked = recovery.steps_say_success(path, [stored.episode_index]) == [is_success]
        if is_marked and (stored.outcome, stored.labelled_by) == (str(outcome), labelled_by):
            return
        self._is_writing = True
        named: list[tuple[str, Path]] = []
        with StagedFiles() as files:
            if not is_marked:
                steps = tables.with_success(read_table(path), stored.episode_index, is_success=is_success)
                stage_parquet(files, path, steps, statistics=_SKIPPABLE)
                named.append(("relabel_steps", path))
            values = tables.label_columns(outcome, labelled_by, wall_time_s)
            values |= tables.statistics_columns({features.SUCCESS: flag_statistics(int(is_success), stored.length)})
            named.append(("relabel_episode", self._metadata.replace(stored, values, files)))
            stored.outcome, stored.labelled_by = str(outcome), labelled_by
            self._stage_counts(files)
            files.sync()
            for stage, path in named:
                files.name(path)
                self._reached(stage)
            sync_directories(path.parent for _, path in named)
            self._name_counts(files)
        self._is_writing = False

    def _success_statistics(self) -> FeatureStatistics:
        num_successes = sum(stored.outcome == Outcome.SUCCESS for stored in self._episodes.values())
        return flag_statistics(num_successes, self.num_steps)

    def _stage_counts(self, files: StagedFiles) -> None:
        """Writes statistics and info.json under temporary names."""
        self._statistics[features.SUCCESS] = self._success_statistics()
        files.write(self.layout.stats, _as_json(to_lists(self._statistics)))
        counts = {"num_episodes": self.num_episodes, "num_steps": self.num_steps, "num_tasks": len(self._prompts)}
        files.write(self.layout.info, _as_json(info_content(self.spec, **counts)))

    def _name_counts(self, files: StagedFiles) -> None:
        """Puts the statistics in place, then info.json, which tells readers that something changed."""
        files.name(self.layout.stats)
        self._reached("statistics")
        files.name(self.layout.info)
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


def _as_json(values: object) -> bytes:
    """Returns indented JSON; the standard library needs ten times as long for it."""
    return msgspec.json.format(msgspec.json.encode(values), indent=4)


def _stored(record: EpisodeRecord, placement: tables.Placement) -> StoredEpisode:
    return StoredEpisode(
        episode_index=placement.episode_index,
        episode_id=record.episode_id,
        outcome=str(record.outcome),
        labelled_by=record.labelled_by,
        length=len(record.steps),
        first_step=placement.first_step,
        data_number=placement.data_number,
        metadata_number=placement.metadata_number,
    )
