"""What the cameras of a robot look like, by the configuration."""

import msgspec

from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError
from serl_launcher.specs import CameraSpec


def camera_specs(config: EnvironmentConfig) -> tuple[CameraSpec, ...]:
    """Returns the cameras of `environment.image_keys`, in that order.

    Raises:
        ConfigError: An encoding, quality or subsampling is unknown, or an encoding is given for no camera.
    """
    strangers = sorted(set(config.image_encodings) - set(config.image_keys))
    if strangers:
        raise ConfigError(f"environment.image_encodings names {strangers}; image_keys are {config.image_keys}.")
    width, height = config.image_size
    described = [
        {
            "name": name,
            "height": height,
            "width": width,
            "encoding": config.image_encodings.get(name, config.image_encoding),
            "quality": config.jpeg_quality,
            "subsampling": config.jpeg_subsampling,
        }
        for name in config.image_keys
    ]
    try:
        return msgspec.convert(described, tuple[CameraSpec, ...])
    except msgspec.ValidationError as exc:
        raise ConfigError(
            "environment.image_encoding must be 'jpeg', 'png' or 'raw', jpeg_quality lie in [1, 100] and "
            f"jpeg_subsampling be '420', '422' or '444': {exc}."
        ) from exc
