"""Says what a crash left in a dataset, and puts it right."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from serl_launcher.datasets.layout import DatasetLayout, read_info, read_json
from serl_launcher.datasets.metadata import EpisodeMetadata, StoredEpisode
from serl_launcher.datasets.recovery import contradicted_labels
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.events import EpisodeLabelled
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Outcome
from tools.replay.rewriting import finish_swap, no_learner, unfinished_copy


def findings(root: Path) -> Iterator[str]:
    """Yields what `repair` would do, one sentence each; nothing where the dataset is as its writer left it.

    Raises:
        DatasetError: There is no dataset, or it is damaged beyond what a crash leaves.
    """
    layout = DatasetLayout(root)
    if not root.exists() and DatasetLayout(unfinished_copy(root)).info.exists():
        yield f"{root} was being replaced: {unfinished_copy(root)} is moved there."
        return
    num_counted, num_steps_counted = _counts(layout)
    for folder in ("meta", "data", "final_observations"):
        for path in sorted((root / folder).rglob(".*.tmp")):
            yield f"{path} was being written and is deleted."
    episodes = EpisodeMetadata(layout).read()
    complete = [episode for episode in episodes if layout.data_file(episode.data_number).exists()]
    yield from _leftovers(layout, complete)
    for episode in episodes[num_counted:]:
        fate = "is counted from now on" if episode in complete else "has no steps: its metadata is set aside"
        yield f"Episode {episode.episode_index} ({episode.episode_id}) is not counted yet; it {fate}."
    for episode in contradicted_labels(layout, complete):
        yield f"Episode {episode.episode_index} is labelled {episode.outcome}, its steps do not say so; they will."
    num_steps = sum(episode.length for episode in complete)
    if complete and not _is_summarised(layout, num_steps):
        yield f"{layout.stats} is not over the {num_steps} steps and is computed anew."
    elif num_steps_counted != num_steps:
        yield f"info.json counts {num_steps_counted} steps, the episodes hold {num_steps}: it is written anew."


def _counts(layout: DatasetLayout) -> tuple[int, int]:
    """Returns the episodes and steps that info.json counts: none where its first episode was cut off."""
    if not layout.robot_spec.exists():
        raise DatasetError(f"Expected a dataset that hiors wrote in {layout.root}; others are not repaired.")
    if not layout.info.exists():
        return 0, 0
    info = read_info(layout.root)
    return int(info["total_episodes"]), int(info["total_frames"])


def _leftovers(layout: DatasetLayout, complete: Sequence[StoredEpisode]) -> Iterator[str]:
    number = max((episode.data_number for episode in complete), default=-1) + 1
    for path in (layout.data_file(number), layout.final_file(number)):
        if path.exists():
            yield f"{path} belongs to no episode and is set aside."


def _is_summarised(layout: DatasetLayout, num_steps: int) -> bool:
    return layout.stats.exists() and read_json(layout.stats).get("action", {}).get("count") == [num_steps]


def repair(root: Path) -> None:
    """Does what `findings` says.

    Raises:
        DatasetError: A learner uses the dataset, or it is damaged beyond what a crash leaves.
    """
    with no_learner(root):
        finish_swap(root)
        _repair(root)


def _repair(root: Path) -> None:
    layout = DatasetLayout(root)
    if any("computed anew" in finding or "written anew" in finding for finding in findings(root)):
        layout.stats.unlink(missing_ok=True)  # The writer computes them from the episodes where there are none.
    with closing(DatasetWriter(root, msgspec.json.decode(layout.robot_spec.read_bytes(), type=RobotSpec))) as writer:
        for episode in contradicted_labels(layout, EpisodeMetadata(layout).read()):
            label = EpisodeLabelled(episode.episode_id, Outcome(episode.outcome), episode.labelled_by, time.time())
            writer.relabel(episode.episode_id, label)
