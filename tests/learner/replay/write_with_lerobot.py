"""Has LeRobot itself write datasets of known pictures: `write_with_lerobot.py FOLDER`, makes `image` and `video`.

The grey level of a picture tells its episode and step; the state tells both exactly.
"""

import json
import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import decode_video_frames

LENGTHS = (6, 4, 5)
SIZE = 64


def grey_of(episode: int, step: int) -> int:
    """Returns the grey level of a picture."""
    return 20 + 60 * episode + 8 * step


def write(root: Path, *, use_videos: bool) -> None:
    """Writes episodes of LENGTHS steps with one camera."""
    dtype = "video" if use_videos else "image"
    names = ["height", "width", "channels"]
    features = {
        "observation.images.front": {"dtype": dtype, "shape": (SIZE, SIZE, 3), "names": names},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
        "action": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    }
    dataset = LeRobotDataset.create(
        "test/written", fps=10, features=features, root=root, use_videos=use_videos, vcodec="h264"
    )
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            picture = np.full((SIZE, SIZE, 3), grey_of(episode, step), np.uint8)
            values = np.array([episode, step, 0], np.float32)
            frame = {"observation.images.front": picture, "observation.state": values, "action": values + 0.5}
            dataset.add_frame({**frame, "task": f"task {episode % 2}"})
        dataset.save_episode()
    dataset.finalize()


def decoded(root: Path) -> list[list[float]]:
    """Returns the mean grey level of every picture of the video dataset as LeRobot decodes it, per episode."""
    dataset = LeRobotDataset("test/written", root=root, video_backend="pyav")
    found = []
    for episode, length in enumerate(LENGTHS):
        start = dataset.meta.episodes[episode]["videos/observation.images.front/from_timestamp"]
        path = root / dataset.meta.get_video_file_path(episode, "observation.images.front")
        frames = decode_video_frames(path, [start + step / 10 for step in range(length)], 1e-3, "pyav")
        found.append((255 * frames.mean(dim=(1, 2, 3))).tolist())
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(folder / "image", use_videos=False)
    write(folder / "video", use_videos=True)
    (folder / "decoded.json").write_text(json.dumps(decoded(folder / "video")))
