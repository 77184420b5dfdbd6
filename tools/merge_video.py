"""Joins episode videos into one, in natural order, holding one picture in memory.

    python -m tools.merge_video --video_folder outputs/run/videos --output_path all.mp4 --fps 30

Pictures of another size than the first are scaled to it.
"""

import argparse
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from actor.video import VideoFile
from serl_launcher.config.loader import run_main
from serl_launcher.errors import ConfigError

logger = logging.getLogger(__name__)


def merge_videos(paths: Sequence[Path], output: Path, *, fps: float, every: int = 1) -> int:
    """Writes every `every`-th picture of all videos to one file; returns how many pictures it holds."""
    num_pictures = 0
    size: tuple[int, int] | None = None
    with VideoFile(output, fps=fps) as merged:
        for path in paths:
            for picture in pictures_of(path, size=size, every=every):
                size = size or picture.shape[:2]
                merged.add(picture)
                num_pictures += 1
    return num_pictures


def pictures_of(path: Path, *, size: tuple[int, int] | None = None, every: int = 1) -> Iterator[np.ndarray]:
    """Yields the pictures of a video, uint8 (height, width, 3) RGB, scaled to `size` (height, width) where given."""
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    height, width = size or (frame.height, frame.width)
                    yield frame.to_ndarray(format="rgb24", width=width, height=height)
    except (FFmpegError, IndexError) as exc:  # IndexError: a file without a video.
        logger.warning("The rest of %s is left out: it is no video, or damaged (%s).", path, exc)


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Returns a sorting key by which `episode_2` comes before `episode_10`."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def videos_in(folder: Path, *, extension: str, output: Path) -> list[Path]:
    """Returns the videos of a folder in natural order, without the output itself; raises ConfigError without any."""
    found = [path for path in folder.glob(f"*.{extension.lstrip('.')}") if path.resolve() != output.resolve()]
    if not found:
        raise ConfigError(f"Expected *.{extension.lstrip('.')} files in {folder}, there are none.")
    return sorted(found, key=natural_order)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.merge_video", description="Joins episode videos into one.")
    parser.add_argument("--video_folder", type=Path, required=True)
    parser.add_argument("--output_path", type=Path, required=True)
    parser.add_argument("--fps", type=float, default=30.0, help="pictures per second of the result")
    parser.add_argument("--every", type=int, default=1, help="keep every n-th picture (timelapse)")
    parser.add_argument("--extension", default="mp4")
    arguments = parser.parse_args(sys.argv[1:])
    if arguments.fps <= 0 or arguments.every < 1:
        raise ConfigError(f"--fps must be positive and --every 1 or more, got {arguments.fps:g} and {arguments.every}.")
    paths = videos_in(arguments.video_folder, extension=arguments.extension, output=arguments.output_path)
    num_pictures = merge_videos(paths, arguments.output_path, fps=arguments.fps, every=arguments.every)
    logger.info("%d videos, %d pictures: %s", len(paths), num_pictures, arguments.output_path)


if __name__ == "__main__":
    run_main(main)
