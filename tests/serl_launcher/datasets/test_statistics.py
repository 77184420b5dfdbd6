import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl_launcher.datasets.statistics import aggregate, flag_statistics, image_statistics, vector_statistics
from serl_launcher.images import encode_png


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_joined_statistics_are_those_of_all_values(lengths: list[int]) -> None:
    rng = np.random.default_rng(sum(lengths))
    parts = [rng.normal(size=(length, 2)) for length in lengths]
    joined, whole = aggregate([vector_statistics(part) for part in parts]), vector_statistics(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(joined[name], whole[name], err_msg=name, atol=1e-12)


def test_scalars_and_flags_have_width_one() -> None:
    assert vector_statistics(np.array([True, False]))["mean"].tolist() == [0.5]


@pytest.mark.parametrize("num_true", [0, 1, 3, 10])
def test_flags_are_counted_like_their_values(num_true: int) -> None:
    values = vector_statistics(np.arange(10) < num_true)
    flags = flag_statistics(num_true, 10)
    for name in ("min", "max", "mean", "std", "count", "q50"):
        np.testing.assert_allclose(flags[name], values[name], err_msg=name, atol=0.51 if name == "q50" else 1e-12)


def test_image_statistics_are_per_channel_between_zero_and_one() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 1] = 255
    image[:5, :, 2] = 51
    statistics = image_statistics([encode_png(image)] * 3, (10, 10, 3))
    assert statistics["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(statistics["mean"].ravel(), [0, 1, 0.1])
    np.testing.assert_allclose(statistics["std"].ravel(), [0, 0, 0.1])
    np.testing.assert_allclose(statistics["max"].ravel(), [0, 1, 0.2])
    np.testing.assert_allclose(statistics["q99"].ravel(), [0, 1, 0.2])
    assert statistics["count"].tolist() == [3]
