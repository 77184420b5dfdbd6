"""Encoding of camera images: one place for the wire, the spool, the journal and the dataset."""

import io
import math

import numpy as np
import simplejpeg
from PIL import Image

from serl_launcher.errors import ProtocolError
from serl_launcher.specs import CameraSpec, ImageEncoding

JPEG_MAGIC = b"\xff\xd8"
PNG_MAGIC = b"\x89PNG"
_PNG_BEGINNING = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
"""What every PNG begins with; width and height follow."""
_PNG_HEAD_BYTES = 24


def encode_image(image: np.ndarray, camera: CameraSpec) -> bytes:
    """Returns a uint8 (height, width, 3) image as the camera's encoding says: JPEG, PNG or raw bytes."""
    if image.shape != camera.shape or image.dtype != np.uint8:
        raise ValueError(
            f"Camera {camera.name!r} must deliver uint8 {camera.shape}, got {image.dtype} {image.shape}. "
            "Check environment.image_size against the camera."
        )
    image = np.ascontiguousarray(image)
    if camera.encoding == "jpeg":
        return simplejpeg.encode_jpeg(
            image, quality=camera.quality, colorspace="RGB", colorsubsampling=camera.subsampling
        )
    if camera.encoding == "png":
        return encode_png(image)
    return image.tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """Returns a uint8 (height, width, 3) image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(encoded: bytes | memoryview, shape: tuple[int, int, int], out: np.ndarray | None = None) -> np.ndarray:
    """Returns the uint8 RGB image in JPEG, PNG or raw bytes; refuses any other size than `shape`.

    Args:
        encoded: The bytes.
        shape: (height, width, 3).
        out: Array of that shape which takes the image, contiguous; a new one if None.

    Raises:
        ProtocolError: The bytes are no image of that shape. The size is read before memory is allocated.
    """
    kind = _checked_kind(encoded, shape)
    if kind == "raw":
        return _placed(np.frombuffer(encoded, np.uint8).reshape(shape), out)
    try:
        if kind == "jpeg":
            return simplejpeg.decode_jpeg(encoded, colorspace="RGB", buffer=out)
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as picture:
            _check_size((picture.height, picture.width, 3), shape)
            return _placed(np.asarray(picture.convert("RGB")), out)
    except (ValueError, OSError, SyntaxError) as exc:
        raise _damaged(encoded, shape, exc) from exc


def check_image(encoded: bytes | memoryview, shape: tuple[int, int, int]) -> None:
    """Raises ProtocolError where the header of an encoded image is damaged or names another size; decodes nothing."""
    _checked_kind(encoded, shape)


def _checked_kind(encoded: bytes | memoryview, shape: tuple[int, int, int]) -> ImageEncoding:
    """Returns the encoding of an image whose header names that shape; raises ProtocolError for any other."""
    head = bytes(encoded[:_PNG_HEAD_BYTES])
    try:
        if head.startswith(JPEG_MAGIC):
            _check_size(_jpeg_shape(encoded), shape)
            return "jpeg"
        if head.startswith(PNG_MAGIC):
            _check_size(_png_shape(head), shape)
            return "png"
        error = ProtocolError(f"Expected an image of shape {shape}, got {len(encoded)} bytes of no known encoding.")
    except ValueError as exc:
        error = _damaged(encoded, shape, exc)
    except ProtocolError as exc:
        error = exc
    if len(encoded) == math.prod(shape):  # The first pixels of a raw image may look like anything.
        return "raw"
    raise error


def _placed(image: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return image
    out[...] = image
    return out


def _jpeg_shape(encoded: bytes | memoryview) -> tuple[int, int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
    return (int(height), int(width), 3)


def _png_shape(head: bytes) -> tuple[int, int, int]:
    if head[:16] != _PNG_BEGINNING or len(head) < _PNG_HEAD_BYTES:
        raise ValueError("no PNG header")
    return (int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big"), 3)


def _damaged(encoded: bytes | memoryview, shape: tuple[int, int, int], reason: Exception) -> ProtocolError:
    return ProtocolError(f"Expected an image of shape {shape}, got {len(encoded)} damaged bytes: {reason}.")


def _check_size(got: tuple[int, int, int], want: tuple[int, int, int]) -> None:
    if got != want:
        raise ProtocolError(f"Expected an image of shape {want}, got {got}. Start both sides with the same robot.")


def stack_images(images: list[np.ndarray]) -> np.ndarray:
    """Returns uint8 [C, height, width, 3]; for a robot without cameras [0, 1, 1, 3]."""
    return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)
