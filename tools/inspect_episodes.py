"""Shows recorded episodes: `python -m tools.inspect_episodes <dataset> [--episode N --output DIR]`.

Without an episode, a table of all. With one, its first and last pictures side by side, and a plot of states and
actions with the person's steps shaded (needs matplotlib), in the output directory.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from learner.replay.reader import ReplayDataset
from serl_launcher.config.loader import run_main
from serl_launcher.datasets.layout import dataset_path
from serl_launcher.errors import ConfigError, DatasetError
from serl_launcher.images import decode_image
from serl_launcher.types import Source

NUM_PICTURES = 5
MIN_HEIGHT = 160
"""Smaller pictures are enlarged by a whole factor; nobody sees anything on 64 pixels."""
MIN_LABELLED = 60
REPLAY = "replay_buffer"
MAX_PLOTS = 14


def open_dataset(name: str) -> ReplayDataset:
    """Returns the dataset of that directory (a run's directory will do), or of that name below HF_LEROBOT_HOME.

    Raises:
        ConfigError: There is none, or it holds no episode yet.
    """
    path = dataset_path(name)
    if not (path / "meta").is_dir() and (path / REPLAY).is_dir():
        path = path / REPLAY
    if not path.is_dir():
        near = sorted(str(found.parent) for found in Path("outputs").glob("*/*/meta"))
        hint = f" There are: {', '.join(near[:8])}." if near else ""
        raise ConfigError(f"Expected a dataset in {path}, there is nothing.{hint}")
    dataset = ReplayDataset(path)
    if dataset.num_episodes == 0:
        raise ConfigError(f"{path} holds no episode yet. Episodes appear when they have ended and the learner runs.")
    return dataset


def table(dataset: ReplayDataset) -> Iterator[str]:
    """Yields one line per episode, after a head."""
    yield f"{'episode':>7} {'steps':>6} {'outcome':<10} {'person':>6} {'policy':>6}  prompt"
    episodes, steps = dataset.episodes, dataset.steps
    for episode in range(dataset.num_episodes):
        first = int(episodes.first_step[episode])
        last = first + int(episodes.length[episode])
        prompt = dataset.prompts[int(steps.task_index[first])]
        yield (
            f"{episode:>7} {episodes.length[episode]:>6} {episodes.outcome[episode]:<10} "
            f"{episodes.num_intervention_steps[episode]:>6} {steps.policy_version[first:last].max():>6}  {prompt}"
        )


def steps_of(dataset: ReplayDataset, episode: int) -> range:
    """Returns the steps of an episode; raises ConfigError where there is none of that number."""
    if not 0 <= episode < dataset.num_episodes:
        raise ConfigError(f"Expected an episode from 0 to {dataset.num_episodes - 1}, got {episode}.")
    first = int(dataset.episodes.first_step[episode])
    return range(first, first + int(dataset.episodes.length[episode]))


def contact_sheet(dataset: ReplayDataset, episode: int, *, min_height: int = MIN_HEIGHT) -> Image.Image:
    """Returns pictures from begin to end, one row per camera, with name and time; small ones are enlarged."""
    steps = steps_of(dataset, episode)
    chosen = [steps[int(index)] for index in np.linspace(0, len(steps) - 1, NUM_PICTURES)]
    rows = []
    for camera, shape in dataset.image_shapes.items():
        pictures = []
        for step in chosen:
            picture = decode_image(dataset.encoded_image(step, camera), shape)
            label = f"{camera}  {(step - steps[0]) / dataset.control_hz:.1f} s"
            pictures.append(_labelled(picture, label, min_height))
        rows.append(np.concatenate(pictures, axis=1))
    if not rows:
        raise DatasetError(f"{dataset.root} has no cameras; there is nothing to see.")
    width = max(row.shape[1] for row in rows)
    return Image.fromarray(np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]))


def _labelled(picture: np.ndarray, label: str, min_height: int) -> np.ndarray:
    times = -(-min_height // picture.shape[0])
    if times > 1:
        picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    if picture.shape[0] < MIN_LABELLED:
        return picture
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, draw.textlength(label) + 6, 13), fill=(0, 0, 0))
    draw.text((3, 1), label, fill=(255, 255, 255))
    return np.asarray(image)


def plot(dataset: ReplayDataset, episode: int, path: Path) -> None:
    """Writes state and action over time as PNG; the person's steps are shaded."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as exc:
        raise ConfigError("Plots need matplotlib: pip install matplotlib.") from exc
    plt.switch_backend("agg")
    steps = steps_of(dataset, episode)
    part = slice(steps.start, steps.stop)
    actions, states = dataset.steps.action[part], dataset.steps.state[part]
    is_person = dataset.steps.source[part] == int(Source.HUMAN)
    times = np.arange(len(steps)) / dataset.control_hz
    num_plots = min(actions.shape[1], MAX_PLOTS)
    figure, axes = plt.subplots(num_plots, 1, figsize=(9, 1.2 * num_plots), sharex=True, squeeze=False)
    names = dataset.spec.action_names if dataset.spec else tuple(f"a{i}" for i in range(actions.shape[1]))
    for index, axis in enumerate(axes[:, 0]):
        axis.plot(times, actions[:, index], label="action")
        if states.shape == actions.shape:
            axis.plot(times, states[:, index], label="state", linestyle=":")
        axis.fill_between(times, 0, 1, where=is_person, transform=axis.get_xaxis_transform(), alpha=0.15)
        axis.set_ylabel(names[index], rotation=0, ha="right", fontsize=7)
    axes[0, 0].legend(fontsize=7)
    axes[-1, 0].set_xlabel("seconds; shaded: the person")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.inspect_episodes", description=__doc__)
    parser.add_argument("dataset", help="a dataset, or its name below HF_LEROBOT_HOME")
    parser.add_argument("--episode", type=int, help="show this one")
    parser.add_argument("--output", type=Path, default=Path("inspection"), help="where pictures go")
    chosen = parser.parse_args(sys.argv[1:])
    dataset = open_dataset(chosen.dataset)
    if chosen.episode is None:
        sys.stdout.writelines(f"{line}\n" for line in table(dataset))
        return
    chosen.output.mkdir(parents=True, exist_ok=True)
    pictures = chosen.output / f"episode_{chosen.episode:04d}.png"
    if dataset.camera_names:
        contact_sheet(dataset, chosen.episode).save(pictures)
    motion = chosen.output / f"episode_{chosen.episode:04d}_motion.png"
    plot(dataset, chosen.episode, motion)
    sys.stdout.write(f"{pictures}\n{motion}\n" if dataset.camera_names else f"{motion}\n")


if __name__ == "__main__":
    run_main(main)
