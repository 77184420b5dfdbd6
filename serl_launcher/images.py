"""Encoding of camera images: one place for the wire, the spool, the journal and the dataset."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from serl_launcher.errors import ProtocolError
from serl_launcher.specs import CameraSpec

JPEG_MAGIC = b"\xff\xd8"
PNG_MAGIC = b"\x89PNG"


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
    head = bytes(encoded[:4])
    try:
        if head[:2] == JPEG_MAGIC:
            _check_size(_jpeg_shape(encoded), shape)
            return simplejpeg.decode_jpeg(encoded, colorspace="RGB", buffer=out)
        if head == PNG_MAGIC:
            with Image.open(io.BytesIO(encoded), formats=["PNG"]) as picture:
                _check_size((picture.height, picture.width, 3), shape)
                return _placed(np.asarray(picture.convert("RGB")), out)
    except (ValueError, OSError, SyntaxError) as exc:
        raise ProtocolError(f"Expected an image of shape {shape}, got {len(encoded)} damaged bytes: {exc}.") from exc
    if len(encoded) == shape[0] * shape[1] * shape[2]:
        return _placed(np.frombuffer(encoded, np.uint8).reshape(shape), out)
    raise ProtocolError(f"Expected an image of shape {shape}, got {len(encoded)} bytes of no known encoding.")


def check_image(encoded: bytes | memoryview, shape: tuple[int, int, int]) -> None:
    """Raises ProtocolError where the header of an encoded image is damaged or names another size; decodes nothing."""
    if bytes(encoded[:2]) != JPEG_MAGIC:
        decode_image(encoded, shape)
        return
    try:
        got = _jpeg_shape(encoded)
    except ValueError as exc:
        raise ProtocolError(
            f"Expected a JPEG image of shape {shape}, got {len(encoded)} damaged bytes: {exc}."
        ) from exc
    _check_size(got, shape)


def _placed(image: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return image
    out[...] = image
    return out


def _jpeg_shape(encoded: bytes | memoryview) -> tuple[int, int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
    return (int(height), int(width), 3)


def _check_size(got: tuple[int, int, int], want: tuple[int, int, int]) -> None:
    if got != want:
        raise ProtocolError(f"Expected an image of shape {want}, got {got}. Start both sides with the same robot.")


def stack_images(images: list[np.ndarray]) -> np.ndarray:
    """Returns uint8 [C, height, width, 3]; for a robot without cameras [0, 1, 1, 3]."""
    return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)
