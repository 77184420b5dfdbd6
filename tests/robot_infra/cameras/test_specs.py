import numpy as np
import pytest
import simplejpeg

from robot_infra.cameras.specs import camera_specs
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError
from serl_launcher.images import decode_image, encode_image


def test_each_camera_is_encoded_as_it_is_told():
    config = EnvironmentConfig(
        image_size=[48, 32], image_keys=["high", "wrist"], image_encodings={"wrist": "png"}, jpeg_quality=80,
        jpeg_subsampling="422",
    )  # fmt: skip
    high, wrist = camera_specs(config)
    assert (high.encoding, wrist.encoding, high.shape) == ("jpeg", "png", (32, 48, 3))
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    encoded = encode_image(image, high)
    assert simplejpeg.decode_jpeg_header(encoded)[3] == "422"
    assert encoded == simplejpeg.encode_jpeg(image, quality=80, colorspace="RGB", colorsubsampling="422")
    np.testing.assert_array_equal(decode_image(encode_image(image, wrist), wrist.shape), image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_encoding": "gif"}, r"'jpeg', 'png' or 'raw'.*gif"),
        ({"image_encodings": {"cam_hihg": "png"}}, "cam_hihg"),
        ({"jpeg_quality": 0}, r"quality must lie in \[1, 100\], got 0"),
        ({"jpeg_subsampling": "4:2:0"}, r"'420', '422' or '444'.*4:2:0"),
    ],
)
def test_an_encoding_that_nobody_knows_is_refused(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        camera_specs(EnvironmentConfig(**settings))
