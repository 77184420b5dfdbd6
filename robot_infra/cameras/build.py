"""Opens the cameras that a configuration names."""

from robot_infra.cameras.frames import CameraReader, PictureSource
from robot_infra.cameras.mjpeg import MjpegSource
from robot_infra.cameras.options import CameraConfig
from serl_launcher.errors import ConfigError


def open_camera(name: str, config: CameraConfig) -> CameraReader:
    """Returns a camera that is being read; raises ConfigError for an unknown kind."""
    return CameraReader(name, _source(name, config), max_age_s=config.max_age_s, frozen_after_s=config.frozen_after_s)


def _source(name: str, config: CameraConfig) -> PictureSource:
    if config.kind == "mjpeg":
        return MjpegSource(config.url)
    if config.kind == "lerobot":
        from robot_infra.cameras.lerobot_camera import LeRobotSource

        return LeRobotSource(config.options)
    raise ConfigError(f"Camera {name!r}: kind must be 'mjpeg' or 'lerobot', got {config.kind!r}.")
