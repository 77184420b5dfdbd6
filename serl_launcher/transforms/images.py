"""Images of robots in their many forms, and the one resize that the field uses."""

import numpy as np
from PIL import Image

_CHANNELS = 3


def to_uint8_hwc(image: np.ndarray) -> np.ndarray:
    """Returns an image as uint8 (height, width, 3).

    Args:
        image: uint8 or float in [0, 1]; channels first or last.
    """
    image = np.asarray(image)
    if image.ndim != 3 or _CHANNELS not in (image.shape[0], image.shape[-1]):
        raise ValueError(f"Expected an image (3, height, width) or (height, width, 3), got {image.shape}.")
    if np.issubdtype(image.dtype, np.floating):
        image = (255 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise ValueError(f"Expected a uint8 or floating-point image, got {image.dtype}.")
    if image.shape[-1] != _CHANNELS:
        image = np.moveaxis(image, 0, -1)
    return image


def resize_with_pad(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fits uint8 images (..., h, w, 3) into (..., height, width, 3): bilinear, undistorted, black borders.

    The same pixels as openpi-client 0.1.2's function of that name. Images of the right size are returned as they are.
    """
    if images.shape[-3:-1] == (height, width):
        return images
    flat = images.reshape((int(np.prod(images.shape[:-3])), *images.shape[-3:]))
    resized = np.stack([_resize_one(image, height, width) for image in flat])
    return resized.reshape((*images.shape[:-3], height, width, images.shape[-1]))


def _resize_one(image: np.ndarray, height: int, width: int) -> np.ndarray:
    old_height, old_width = image.shape[:2]
    ratio = max(old_width / width, old_height / height)
    inner_height, inner_width = int(old_height / ratio), int(old_width / ratio)
    inner = Image.fromarray(image).resize((inner_width, inner_height), resample=Image.Resampling.BILINEAR)
    canvas = np.zeros((height, width, image.shape[2]), np.uint8)
    top, left = int((height - inner_height) / 2), int((width - inner_width) / 2)
    canvas[top : top + inner_height, left : left + inner_width] = np.asarray(inner)
    return canvas
