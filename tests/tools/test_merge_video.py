from pathlib import Path

import av
import numpy as np
import pytest

from actor.video import VideoFile
from serl_launcher.errors import ConfigError
from tools.merge_video import merge_videos, natural_order, pictures_of, videos_in


def make_video(path: Path, *, brightness: int, num_pictures: int = 3, size: tuple[int, int] = (32, 48)) -> Path:
    with VideoFile(path, fps=10) as video:
        for _ in range(num_pictures):
            video.add(np.full((*size, 3), brightness, np.uint8))
    return path


def test_numbers_in_names_are_ordered_as_numbers():
    names = ["episode_10.mp4", "episode_2.mp4", "episode_1b.mp4", "episode_1.mp4"]
    ordered = sorted((Path(name) for name in names), key=natural_order)
    assert [path.name for path in ordered] == ["episode_1.mp4", "episode_1b.mp4", "episode_2.mp4", "episode_10.mp4"]


def test_videos_follow_each_other_with_all_their_pictures(tmp_path: Path):
    paths = [
        make_video(tmp_path / "a.mp4", brightness=40),
        make_video(tmp_path / "b.mp4", brightness=200, num_pictures=2),
    ]
    assert merge_videos(paths, tmp_path / "all.mp4", fps=30) == 5
    brightness = [int(picture.mean()) for picture in pictures_of(tmp_path / "all.mp4")]
    assert brightness == pytest.approx([40, 40, 40, 200, 200], abs=6)


def test_pictures_of_another_size_are_scaled_to_the_first(tmp_path: Path):
    paths = [make_video(tmp_path / "a.mp4", brightness=9), make_video(tmp_path / "b.mp4", brightness=9, size=(64, 96))]
    merge_videos(paths, tmp_path / "all.mp4", fps=30)
    assert {picture.shape for picture in pictures_of(tmp_path / "all.mp4")} == {(32, 48, 3)}


def test_a_timelapse_keeps_every_nth_picture(tmp_path: Path):
    paths = [make_video(tmp_path / "a.mp4", brightness=9, num_pictures=7)]
    assert merge_videos(paths, tmp_path / "all.mp4", fps=30, every=3) == 3


def test_the_result_has_the_asked_rate(tmp_path: Path):
    merge_videos([make_video(tmp_path / "a.mp4", brightness=9)], tmp_path / "all.mp4", fps=5)
    with av.open(str(tmp_path / "all.mp4")) as video:
        assert video.streams.video[0].average_rate == 5


def test_the_output_is_no_input_of_itself(tmp_path: Path):
    paths = [make_video(tmp_path / "a.mp4", brightness=9), make_video(tmp_path / "all.mp4", brightness=9)]
    assert videos_in(tmp_path, extension="mp4", output=tmp_path / "all.mp4") == paths[:1]


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"Expected \*.mp4 files"):
        videos_in(tmp_path, extension="mp4", output=tmp_path / "all.mp4")


def test_a_damaged_video_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    good = make_video(tmp_path / "a.mp4", brightness=9)
    damaged = tmp_path / "b.mp4"
    damaged.write_bytes(good.read_bytes()[:100])
    assert merge_videos([damaged, good], tmp_path / "all.mp4", fps=30) == 3
    assert "b.mp4" in caplog.text
