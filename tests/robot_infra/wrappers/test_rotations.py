import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra.wrappers.rotations import euler_to_matrix, matrix_to_euler, matrix_to_six, quaternion_to_matrix

angles = arrays(np.float64, 3, elements=st.floats(-1.5, 1.5))


@given(euler=angles)
def test_euler_angles_survive_the_matrix(euler: np.ndarray):
    np.testing.assert_allclose(matrix_to_euler(euler_to_matrix(euler)), euler, atol=1e-6)


@given(quaternion=arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_a_quaternion_gives_a_rotation_and_its_negative_the_same(quaternion: np.ndarray):
    matrix = quaternion_to_matrix(quaternion)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    np.testing.assert_allclose(quaternion_to_matrix(-quaternion), matrix, atol=1e-12)


def test_a_pitch_of_0_05_is_a_pitch_of_0_05():
    """The sign of the pitch, which an ancestor turned round."""
    quaternion = [0.0, np.sin(0.025), 0.0, np.cos(0.025)]
    np.testing.assert_allclose(matrix_to_euler(quaternion_to_matrix(np.array(quaternion))), [0, 0.05, 0], atol=1e-9)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_gimbal_lock_still_gives_the_same_rotation(pitch: float):
    matrix = euler_to_matrix(np.array([0.3, pitch, 0.5]))
    np.testing.assert_allclose(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=1e-6)


def test_six_numbers_are_the_first_two_columns():
    matrix = euler_to_matrix(np.array([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(matrix_to_six(matrix), [*matrix[:, 0], *matrix[:, 1]])
