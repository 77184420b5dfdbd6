import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from robot_infra.cameras.build import open_camera
from robot_infra.cameras.frames import CameraReader
from robot_infra.cameras.mjpeg import MjpegSource
from robot_infra.cameras.options import CameraConfig
from robot_infra.robots.dobot.emulator.cameras import EmulatedCameras
from serl_launcher.errors import ConfigError, RobotError

RED = np.broadcast_to(np.array([200, 20, 20], np.uint8), (24, 32, 3))


@pytest.fixture
def cameras() -> Iterator[EmulatedCameras]:
    served = EmulatedCameras()
    yield served
    served.close()


def reader(cameras: EmulatedCameras, *, max_age_s: float = 5.0, frozen_after_s: float = 0.0) -> CameraReader:
    source = MjpegSource(f"http://127.0.0.1:{cameras.port}/front")
    return CameraReader("front", source, max_age_s=max_age_s, frozen_after_s=frozen_after_s)


def show_until(cameras: EmulatedCameras, condition: Callable[[], object], picture: np.ndarray = RED) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        cameras.show({"front": picture})
        time.sleep(0.02)


def sees(camera: CameraReader) -> bool:
    try:
        camera.newest()
    except RobotError:
        return False
    return True


def test_the_newest_picture_is_given_out_at_once(cameras: EmulatedCameras):
    with closing(reader(cameras)) as camera:
        show_until(cameras, lambda: sees(camera))
        assert camera.newest().shape == (24, 32, 3)
        assert abs(int(camera.newest()[..., 0].mean()) - 200) < 6
        show_until(cameras, lambda: camera.newest()[..., 0].mean() < 50, picture=np.zeros((24, 32, 3), np.uint8))


def test_an_old_picture_is_not_given_out(cameras: EmulatedCameras):
    with closing(reader(cameras, max_age_s=0.3)) as camera:
        show_until(cameras, lambda: sees(camera))
        time.sleep(0.5)
        with pytest.raises(RobotError, match=r"not older than 0\.3 s"):
            camera.newest()


def test_a_frozen_camera_is_found_out(cameras: EmulatedCameras):
    with closing(reader(cameras, frozen_after_s=0.5)) as camera:
        show_until(cameras, lambda: sees(camera))
        cameras.frozen.add("front")
        show_until(cameras, lambda: not sees(camera))
        with pytest.raises(RobotError, match="frozen"):
            camera.newest()


def test_a_camera_that_does_not_answer_says_why():
    served = EmulatedCameras()
    port = served.port
    served.close()
    source = MjpegSource(f"http://127.0.0.1:{port}/front")
    with (
        closing(CameraReader("front", source, max_age_s=1.0, frozen_after_s=0.0)) as camera,
        pytest.raises(RobotError, match=r"missing.*Connection refused"),
    ):
        camera.wait(0.5)


@pytest.mark.parametrize("url", ["front", "https://somewhere/x", "http://"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(RobotError, match="http://host:port/path"):
        MjpegSource(url)


def test_a_camera_of_lerobot_says_so_where_lerobot_is_missing(monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lerobot" else find_spec(name))
    with pytest.raises(ConfigError, match="pip install lerobot"):
        open_camera("front", CameraConfig(kind="lerobot", options={"type": "opencv"}))


def test_an_unknown_kind_of_camera_is_refused():
    with pytest.raises(ConfigError, match="'mjpeg' or 'lerobot', got 'film'"):
        open_camera("front", CameraConfig(kind="film"))
