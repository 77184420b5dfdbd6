import numpy as np
import pytest

from serl_launcher.transforms.images import resize_with_pad, to_uint8_hwc


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((720, 1280), (49, 174), (0, 223)),
        ((180, 320), (49, 174), (0, 223)),
        ((480, 640), (28, 195), (0, 223)),
        ((100, 50), (0, 223), (56, 167)),
    ],
)
def test_the_border_lies_where_the_clients_of_the_field_put_it(shape, rows, columns):
    resized = resize_with_pad(np.full((*shape, 3), 200, np.uint8), 224, 224)
    filled = np.argwhere(resized[..., 0] > 0)
    assert tuple(filled.min(0)) == (rows[0], columns[0])
    assert tuple(filled.max(0)) == (rows[1], columns[1])


def test_an_image_of_the_right_size_is_the_same_object():
    image = np.zeros((224, 224, 3), np.uint8)
    assert resize_with_pad(image, 224, 224) is image


def test_leading_axes_are_kept():
    assert resize_with_pad(np.zeros((2, 5, 10, 20, 3), np.uint8), 8, 8).shape == (2, 5, 8, 8, 3)


def test_floats_and_channels_first_become_uint8_channels_last():
    image = np.zeros((3, 4, 5), np.float32)
    image[0] = 0.5
    converted = to_uint8_hwc(image)
    assert converted.shape == (4, 5, 3)
    assert converted[0, 0].tolist() == [127, 0, 0]


@pytest.mark.parametrize("image", [np.zeros((4, 5)), np.zeros((4, 5, 2)), np.zeros((4, 5, 3), np.int64)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="Expected"):
        to_uint8_hwc(image)
