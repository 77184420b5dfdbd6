"""Says what a crash left in a dataset, and puts it right."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from serl_launcher.datasets.layout import DatasetLayout, read_info, read_json
from serl_launcher.datasets.metadata import EpisodeMetadata
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.specs import RobotSpec
from tools.replay.rewriting import check_unused, finish_swap, unfinished_copy


def findings(root: Path) -> Iterator[str]:
    """Yields what `repair` would do, one sentence each; nothing where the dataset is as its writer left it.

    Raises:
        DatasetError: There is no dataset, or it is damaged beyond what a crash leaves.
    """
    layout = DatasetLayout(root)
    if not root.exists() and DatasetLayout(unfinished_copy(root)).info.exists():
        yield f"{root} was being replaced: {unfinished_copy(root)} is moved there."
        return
    info = read_info(root)
    if not layout.robot_spec.exists():
        raise DatasetError(f"Expected a dataset that hiors wrote in {root}; others are not repaired.")
    for folder in ("meta", "data", "final_observations"):
        for path in sorted((root / folder).rglob(".*.tmp")):
            yield f"{path} was being written and is deleted."
    num_counted = int(info["total_episodes"])
    episodes = EpisodeMetadata(layout).read()
    has_data = [layout.data_file(episode.data_number).exists() for episode in episodes]
    for episode, is_there in list(zip(episodes, has_data, strict=True))[num_counted:]:
        fate = "is counted from now on" if is_there else "has no steps: its metadata is set aside"
        yield f"Episode {episode.episode_index} ({episode.episode_id}) is not counted yet; it {fate}."
    complete = [episode for episode, is_there in zip(episodes, has_data, strict=True) if is_there]
    number = max((episode.data_number for episode in complete), default=-1) + 1
    for path in (layout.data_file(number), layout.final_file(number)):
        if path.exists():
            yield f"{path} belongs to no episode and is set aside."
    num_steps = sum(episode.length for episode in complete)
    if not layout.stats.exists() or read_json(layout.stats).get("action", {}).get("count") != [num_steps]:
        yield f"{layout.stats} is not over the {num_steps} steps and is computed anew."
    elif int(info["total_frames"]) != num_steps:
        yield f"info.json counts {info['total_frames']} steps, the episodes hold {num_steps}: it is written anew."


def repair(root: Path) -> None:
    """Does what `findings` says.

    Raises:
        DatasetError: A learner uses the dataset, or it is damaged beyond what a crash leaves.
    """
    check_unused(root)
    finish_swap(root)
    layout = DatasetLayout(root)
    if any("computed anew" in finding or "written anew" in finding for finding in findings(root)):
        layout.stats.unlink(missing_ok=True)  # The writer computes them from the episodes where there are none.
    DatasetWriter(root, msgspec.json.decode(layout.robot_spec.read_bytes(), type=RobotSpec))
