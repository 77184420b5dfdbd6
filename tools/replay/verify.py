"""Looks into a replay or demonstration dataset: is it whole, and what is in it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from learner.replay.reader import ReplayDataset
from learner.replay.statistics import norm_stats
from serl_launcher.datasets import features
from serl_launcher.datasets.layout import DatasetLayout, read_info, read_json
from serl_launcher.datasets.metadata import EpisodeMetadata
from serl_launcher.datasets.recovery import contradicted_labels
from serl_launcher.errors import DatasetError, HiorsError
from serl_launcher.types import Source


def problems(root: Path) -> Iterator[str]:
    """Yields what is wrong with a dataset, one sentence each; nothing where it is whole. Decodes every image."""
    try:
        info = read_info(root, versions=("v3.", "v2."))
        dataset = ReplayDataset(root)
    except HiorsError as exc:
        yield str(exc)
        return
    if dataset.num_steps != info["total_frames"]:
        yield f"info.json counts {info['total_frames']} steps, the episodes hold {dataset.num_steps}."
    num_tasks = len(dataset.prompts)
    if dataset.num_steps and dataset.steps.task_index.max() >= num_tasks:
        yield f"Steps name task {dataset.steps.task_index.max()}, tasks.parquet has {num_tasks}."
    for what, values in (("state", dataset.steps.state), ("action", dataset.steps.action)):
        if not np.isfinite(values).all():
            yield f"Step {int(np.argwhere(~np.isfinite(values))[0, 0])} has a {what} that is not finite."
    yield from _numbering_problems(root, info["total_episodes"])
    if str(info["codebase_version"]).startswith("v3."):
        yield from _statistics_problems(dataset)
    if dataset.spec is not None:
        yield from _label_problems(dataset)
    for step in range(dataset.num_steps):
        yield from _image_problems(dataset, step)


def report(root: Path) -> str:
    """Returns what a dataset holds, for people: sizes, outcomes, who acted, and the statistics of its vectors."""
    dataset = ReplayDataset(root)
    if not dataset.num_steps:
        raise DatasetError(f"Expected a dataset with episodes in {root}, found none. Check the path.")
    episodes, steps = dataset.episodes, dataset.steps
    outcomes = Counter(episodes.outcome.tolist())
    sources = Counter(Source(int(source)).name.lower() for source in steps.source)
    prompts = Counter(dataset.prompts[int(steps.task_index[first])] for first in episodes.first_step)
    num_bytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    robot = dataset.spec.name if dataset.spec else read_info(root, versions=("v3.", "v2.")).get("robot_type")
    lines = [
        f"{root}",
        f"  robot         {robot}, {dataset.control_hz:g} Hz, cameras {dict(dataset.image_shapes)}",
        f"  size          {dataset.num_episodes} episodes, {dataset.num_steps} steps, "
        f"{num_bytes / 1e6:.1f} MB ({num_bytes / dataset.num_steps / 1e3:.1f} KB per step)",
        f"  length        {episodes.length.min()} to {episodes.length.max()} steps, mean {episodes.length.mean():.1f}",
        f"  outcomes      {_shares(outcomes)}",
        f"  steps by      {_shares(sources)}",
        f"  interventions {int((episodes.num_intervention_steps > 0).sum())} episodes, "
        f"{int(episodes.num_intervention_steps.sum())} steps",
        f"  policies      {steps.policy_version.min()} to {steps.policy_version.max()}",
        *(f"  prompt        {count:5d} x {prompt!r}" for prompt, count in prompts.most_common()),
    ]
    for what, values in norm_stats([dataset], 1).items():
        for name, numbers in values.items():
            lines.append(f"  {what:8s}{name:6s}[{', '.join(f'{number:.4g}' for number in numbers)}]")
    return "\n".join(lines)


def _numbering_problems(root: Path, num_episodes: int) -> Iterator[str]:
    expected = 0
    for path in sorted((root / "data").glob("chunk-*/file-*.parquet")):
        with pq.ParquetFile(path) as file:
            table = file.read(columns=[features.INDEX, features.EPISODE_INDEX])
        indices = table[features.INDEX].to_numpy()[table[features.EPISODE_INDEX].to_numpy() < num_episodes]
        if not np.array_equal(indices, np.arange(expected, expected + len(indices))):
            yield f"{path}: expected steps numbered from {expected} without gaps."
        expected += len(indices)


def _statistics_problems(dataset: ReplayDataset) -> Iterator[str]:
    path = DatasetLayout(dataset.root).stats
    if not path.exists():
        yield f"{path} is missing; LeRobot cannot normalise."
        return
    counted = read_json(path).get(features.ACTION, {}).get("count", [0])[0]
    if counted != dataset.num_steps:
        yield f"{path} is over {counted} steps, the dataset has {dataset.num_steps}."


def _label_problems(dataset: ReplayDataset) -> Iterator[str]:
    layout = DatasetLayout(dataset.root)
    for episode in contradicted_labels(layout, EpisodeMetadata(layout).read()[: dataset.num_episodes]):
        yield (
            f"Episode {episode.episode_index} is labelled {episode.outcome}, its steps do not say so: "
            "run tools.replay repair."
        )


def _image_problems(dataset: ReplayDataset, step: int) -> Iterator[str]:
    for camera in dataset.camera_names:
        try:
            dataset.image(step, camera)
            episode = int(dataset.steps.episode[step])
            if step == dataset.episodes.first_step[episode]:
                dataset.final_image(episode, camera)
        except HiorsError as exc:
            yield f"Step {step}, camera {camera}: {exc}"


def _shares(counts: Counter[str]) -> str:
    total = counts.total()
    return ", ".join(f"{name} {count} ({100 * count / total:.0f} %)" for name, count in counts.most_common())
