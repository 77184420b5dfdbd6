import numpy as np
import pytest

from serl_launcher.errors import ProtocolError
from serl_launcher.images import check_image, decode_image, encode_image, encode_png
from serl_launcher.specs import CameraSpec

SHAPE = (16, 24, 3)
IMAGE = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def camera(encoding):
    return CameraSpec(name="cam", height=16, width=24, encoding=encoding)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_lossless_images_come_back_as_they_were(encoding):
    encoded = encode_image(IMAGE, camera(encoding))
    check_image(memoryview(encoded), SHAPE)
    np.testing.assert_array_equal(decode_image(encoded, SHAPE), IMAGE)


@pytest.mark.parametrize("first_bytes", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_a_raw_image_may_begin_like_another_encoding(first_bytes):
    raw = first_bytes + IMAGE.tobytes()[len(first_bytes) :]
    check_image(raw, SHAPE)
    assert decode_image(raw, SHAPE).tobytes() == raw


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_another_size_is_refused_by_the_header(encoding):
    encoded = encode_image(IMAGE, camera(encoding))
    with pytest.raises(ProtocolError, match=r"\(24, 16, 3\)" if encoding != "raw" else "no known encoding"):
        check_image(encoded, (24, 16, 3) if encoding != "raw" else (16, 25, 3))


def test_a_png_is_checked_without_being_decoded():
    encoded = encode_png(IMAGE)
    check_image(encoded[:24], SHAPE)
    with pytest.raises(ProtocolError, match="damaged"):
        decode_image(encoded[:24], SHAPE)


@pytest.mark.parametrize("encoded", [b"", b"\xff\xd8", b"\x89PNG", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_damaged_header_is_refused(encoded):
    with pytest.raises(ProtocolError):
        check_image(encoded, SHAPE)
