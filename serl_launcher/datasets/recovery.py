"""What a crash can leave in a dataset, and how it is put right."""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from serl_launcher.datasets import features
from serl_launcher.datasets.layout import DatasetLayout, read_table
from serl_launcher.datasets.metadata import EpisodeMetadata, StoredEpisode, read_statistics
from serl_launcher.datasets.statistics import FeatureStatistics, aggregate, from_lists, is_finite
from serl_launcher.datasets.tables import column_values
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)


def remove_temporary_files(layout: DatasetLayout) -> None:
    """Deletes files that were being written when a process died; none of them was ever part of the dataset."""
    for folder in ("meta", "data", "final_observations"):
        for path in (layout.root / folder).rglob(".*.tmp"):
            path.unlink()


def complete_episodes(layout: DatasetLayout, metadata: EpisodeMetadata, num_vouched: int) -> list[StoredEpisode]:
    """Returns the episodes on disk with all of their own files, counted by info.json or not, in order.

    Metadata of an episode that does not count and has no data is taken out; a copy goes to `set_aside`.

    Raises:
        DatasetError: Something is missing of an episode that info.json counts.
    """
    episodes = metadata.read()
    has_data = {number: layout.data_file(number).exists() for number in {each.data_number for each in episodes}}
    num_complete = next(
        (index for index, episode in enumerate(episodes) if not has_data[episode.data_number]), len(episodes)
    )
    if num_complete < num_vouched:
        raise DatasetError(
            f"{layout.root} counts {num_vouched} episodes, but files of episode {num_complete} are missing. "
            "Restore them, or start a new dataset."
        )
    unfinished = episodes[num_complete:]
    if unfinished:
        for number in sorted({episode.metadata_number for episode in unfinished}):
            path = layout.metadata_file(number)
            shutil.copy2(path, _place_aside(layout, path))
        logger.warning("%d episodes of %s have metadata but no steps; it is set aside.", len(unfinished), layout.root)
        metadata.drop(unfinished)
    return episodes[:num_complete]


def set_aside_beyond(layout: DatasetLayout, number: int) -> None:
    """Moves the files of an unfinished episode to `set_aside`; the journal still has its steps."""
    for path in (layout.data_file(number), layout.final_file(number)):
        if path.exists():
            target = _place_aside(layout, path)
            path.replace(target)
            logger.warning("Unfinished %s is now %s; the episode is sealed again from the journal.", path, target)


def remove_beyond(layout: DatasetLayout, metadata: EpisodeMetadata) -> None:
    """Deletes the files of an episode that has no metadata yet; for a writer whose caller still has the episode."""
    number = max((episode.data_number for episode in metadata.read()), default=-1) + 1
    for path in (layout.data_file(number), layout.final_file(number)):
        path.unlink(missing_ok=True)


def steps_say_success(path: Path, episodes: Sequence[int]) -> list[bool]:
    """Returns whether the steps in a data file say that each of these episodes of it succeeded."""
    steps = read_table(path, [features.EPISODE_INDEX, features.SUCCESS])
    successful = column_values(steps, features.EPISODE_INDEX)[column_values(steps, features.SUCCESS)]
    return np.isin(episodes, successful).tolist()


def contradicted_labels(layout: DatasetLayout, episodes: Sequence[StoredEpisode]) -> list[StoredEpisode]:
    """Returns the episodes whose steps say something else of their success than their label; all must have steps."""
    found: list[StoredEpisode] = []
    for number, group in groupby(episodes, lambda episode: episode.data_number):
        same_file = list(group)
        said = steps_say_success(layout.data_file(number), [each.episode_index for each in same_file])
        found += [each for each, is_success in zip(same_file, said, strict=True)
                  if is_success != (each.outcome == Outcome.SUCCESS)]  # fmt: skip
    return found


def aggregate_rows(layout: DatasetLayout, num_episodes: int) -> dict[str, FeatureStatistics]:
    """Returns the statistics of the dataset, computed anew from those of its episodes.

    What a former version wrote of episodes with values that are not finite is left out, feature by feature.
    """
    parts: dict[str, list[FeatureStatistics]] = {}
    num_left_out: Counter[str] = Counter()
    for episode in read_statistics(layout, num_episodes):
        for feature, statistics in from_lists(episode).items():
            if is_finite(statistics):
                parts.setdefault(feature, []).append(statistics)
            else:
                num_left_out[feature] += 1
    for feature, count in num_left_out.items():
        logger.warning("%s: %s of %d episodes is not finite; see tools.replay verify.", layout.root, feature, count)
    return {feature: aggregate(statistics) for feature, statistics in parts.items()}


def _place_aside(layout: DatasetLayout, path: Path) -> Path:
    """Returns a free name below `set_aside`, in a folder named as the one the file comes from."""
    relative = path.relative_to(layout.root)
    folder = layout.set_aside / relative.parts[0]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{path.parent.name}-{path.name}.{time.time_ns()}.unfinished"
