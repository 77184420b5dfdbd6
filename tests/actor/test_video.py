from pathlib import Path

import av
import numpy as np

from actor.video import FilmedEnv, VideoFile
from tests.actor.tiny_robot import TinyRobot


def num_pictures(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def test_a_video_holds_every_picture(tmp_path: Path):
    with VideoFile(tmp_path / "a.mp4", fps=10) as video:
        for _ in range(7):
            video.add(np.zeros((33, 49, 3), np.uint8))
    assert num_pictures(tmp_path / "a.mp4") == 7


def test_a_video_appears_only_when_it_is_complete(tmp_path: Path):
    video = VideoFile(tmp_path / "a.mp4", fps=10)
    video.add(np.zeros((32, 48, 3), np.uint8))
    assert not (tmp_path / "a.mp4").exists()
    video.close()
    assert (tmp_path / "a.mp4").exists()


def test_a_video_without_pictures_leaves_no_file(tmp_path: Path):
    VideoFile(tmp_path / "a.mp4", fps=10).close()
    assert list(tmp_path.iterdir()) == []


def test_a_filmed_robot_writes_one_video_per_episode(tmp_path: Path):
    robot = FilmedEnv(TinyRobot(max_steps=3), tmp_path)
    for seed in (4, 5):
        robot.reset(seed=seed)
        for _ in range(3):
            robot.step(np.zeros(2, np.float32))
    robot.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed_0000004.mp4", "seed_0000005.mp4"]
    assert num_pictures(tmp_path / "seed_0000004.mp4") == 4
