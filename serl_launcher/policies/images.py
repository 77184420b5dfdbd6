"""Camera images as the network sees them."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec


def resize_with_pad(
    images: Float[Tensor, "B C 3 h w"],
    size: int,
    like: str = "openpi",
    *,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "B C 3 s s"]:
    """Fits images in [-1, 1] into a square without distortion.

    Args:
        images: One size for all cameras.
        size: Side of the square.
        like: `openpi` resizes with antialiasing and pads with black (-1); `lerobot` (0.4.4) does not antialias, and
            pads with -1 before it maps [0, 1] to [-1, 1], so that its border is -3.
        change: Of the picture within the border, such as augmentation: the border is the same whatever the light.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images if change is None else change(images)
    # In floating point as both do it, which may lose the last row: 18 of 18 rows become 223 of 224.
    ratio = max(width / size, height / size)
    new_height, new_width = int(height / ratio), int(width / ratio)
    resized = F.interpolate(
        images.flatten(0, 1), (new_height, new_width), mode="bilinear", align_corners=False, antialias=like == "openpi"
    ).clamp(-1, 1)
    if change is not None:
        resized = change(resized.unflatten(0, images.shape[:2])).flatten(0, 1)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    padding = (left, size - new_width - left, top, size - new_height - top)
    border = -1.0 if like == "openpi" else -3.0
    return F.pad(resized, padding, value=border).unflatten(0, images.shape[:2])


def camera_order(config: PolicyConfig, spec: RobotSpec) -> list[int] | None:
    """Returns which of the robot's cameras the network sees, in its order; None: all as they are.

    A camera that the robot lacks is left out rather than masked: masked tokens are seen by nobody.
    """
    if not config.image_keys:
        return None
    order = [spec.camera_names.index(name) for name in config.image_keys if name in spec.camera_names]
    if not order:
        raise ConfigError(
            f"policy.image_keys names {config.image_keys}; robot {spec.name!r} has only {list(spec.camera_names)}."
        )
    return order
