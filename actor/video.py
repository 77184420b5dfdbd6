"""Episodes as MP4 files. Needs PyAV (`pip install av`), and only when a video is wanted."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from robot_infra.interfaces import RobotEnv, Transition
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation


class VideoFile:
    """One H.264 file that is written picture by picture; it appears under its name when it is complete.

    Example:
        with VideoFile(Path("episode_000.mp4"), fps=10) as video:
            video.add(env.render())
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        """Prepares the file; nothing is written before the first picture.

        Raises:
            ConfigError: PyAV is not installed.
        """
        try:
            import av
        except ImportError as exc:
            raise ConfigError("Videos need PyAV: `pip install av`, or set num_videos=0 and save_video=false.") from exc
        self.path = path
        self._temporary = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._new_frame = av.VideoFrame.from_ndarray
        self._container = av.open(str(self._temporary), mode="w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._num_pictures = 0

    def add(self, picture: np.ndarray) -> None:
        """Appends a uint8 (height, width, 3) RGB picture; an odd row or column at the border is cut off."""
        height, width = (side - side % 2 for side in picture.shape[:2])
        if self._num_pictures == 0:
            self._stream.width, self._stream.height = width, height
        frame = self._new_frame(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self._num_pictures += 1

    def close(self) -> None:
        """Finishes the file; one without a picture is removed."""
        if self._num_pictures:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        self._container.close()
        if self._num_pictures:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FilmedEnv:
    """A robot whose every episode is written to `seed_<seed>.mp4`, also one that is cut short."""

    def __init__(self, env: RobotEnv, directory: Path) -> None:
        """Films `env` from its next reset on."""
        self.env = env
        self._directory = directory
        self._video: VideoFile | None = None

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like."""
        return self.env.spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode and its video."""
        self._finish()
        observation = self.env.reset(seed=seed)
        self._video = VideoFile(self._directory / f"seed_{seed:07d}.mp4", fps=self.spec.control_hz)
        self._video.add(self.env.render())
        return observation

    def step(self, action: np.ndarray) -> Transition:
        """Commands the robot and films what came of it."""
        transition = self.env.step(action)
        if self._video is not None:
            self._video.add(self.env.render())
        if transition.terminated or transition.truncated:
            self._finish()
        return transition

    def render(self) -> np.ndarray:
        """Returns the picture of the scene."""
        return self.env.render()

    def close(self) -> None:
        """Finishes the video and frees the robot."""
        self._finish()
        self.env.close()

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the robot has, e.g. `keeps_time`.
        return getattr(self.env, name)

    def _finish(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
