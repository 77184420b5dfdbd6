"""Looks into a replay or demonstration dataset: `python -m tools.replay verify|stats <directory>`."""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from learner.replay.reader import ReplayDataset
from learner.replay.statistics import norm_stats
from serl_launcher.datasets import features
from serl_launcher.datasets.layout import DatasetLayout, dataset_path, read_info, read_json
from serl_launcher.errors import DatasetError, HiorsError
from serl_launcher.images import decode_image
from serl_launcher.types import Source


def problems(root: Path) -> Iterator[str]:
    """Yields what is wrong with a dataset, one sentence each; nothing where it is whole. Decodes every image."""
    try:
        info = read_info(root)
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
    yield from _statistics_problems(dataset)
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
    lines = [
        f"{root}",
        f"  robot         {dataset.spec.name if dataset.spec else read_info(root).get('robot_type')}, "
        f"{dataset.control_hz:g} Hz, cameras {dict(dataset.image_shapes)}",
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


def main(arguments: list[str]) -> int:
    """Runs the tool; returns 0 where all is well."""
    parser = argparse.ArgumentParser(prog="python -m tools.replay", description=__doc__)
    parser.add_argument("command", choices=("verify", "stats"), help="check every file, or say what is in it")
    parser.add_argument("directory", help="a dataset, or its name below HF_LEROBOT_HOME")
    chosen = parser.parse_args(arguments)
    root = dataset_path(chosen.directory)
    try:
        if chosen.command == "stats":
            sys.stdout.write(report(root) + "\n")
            return 0
    except HiorsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    num_problems = 0
    for problem in problems(root):
        num_problems += 1
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{root}: {f'{num_problems} problems' if num_problems else 'whole'}.\n")
    return int(num_problems > 0)


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


def _image_problems(dataset: ReplayDataset, step: int) -> Iterator[str]:
    for camera, shape in dataset.image_shapes.items():
        try:
            decode_image(dataset.encoded_image(step, camera), shape)
            episode = int(dataset.steps.episode[step])
            if step == dataset.episodes.first_step[episode]:
                decode_image(dataset.encoded_final_image(episode, camera), shape)
        except HiorsError as exc:
            yield f"Step {step}, camera {camera}: {exc}"


def _shares(counts: Counter[str]) -> str:
    total = counts.total()
    return ", ".join(f"{name} {count} ({100 * count / total:.0f} %)" for name, count in counts.most_common())


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    sys.exit(main(sys.argv[1:]))
