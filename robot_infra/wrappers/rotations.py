"""Unit quaternions (x, y, z, w) as rotation matrices, Euler angles and six numbers; nothing but numpy."""

import numpy as np


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Returns the rotation matrix [3, 3] of a quaternion (x, y, z, w), which need not have length 1."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_euler(matrix: np.ndarray) -> np.ndarray:
    """Returns roll, pitch and yaw in radians: R = Rz(yaw) Ry(pitch) Rx(roll) (fixed axes x, y, z)."""
    pitch = np.arcsin(np.clip(-matrix[2, 0], -1.0, 1.0))
    if abs(matrix[2, 0]) > 1 - 1e-9:  # Gimbal lock: roll and yaw turn about the same axis; all of it is called yaw.
        return np.array([0.0, pitch, np.arctan2(-matrix[0, 1], matrix[1, 1])])
    return np.array([np.arctan2(matrix[2, 1], matrix[2, 2]), pitch, np.arctan2(matrix[1, 0], matrix[0, 0])])


def euler_to_matrix(euler: np.ndarray) -> np.ndarray:
    """Returns the rotation matrix [3, 3] of roll, pitch and yaw in radians; the opposite of `matrix_to_euler`."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(euler), np.cos(euler)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def matrix_to_six(matrix: np.ndarray) -> np.ndarray:
    """Returns the first two columns, [6]: a rotation without jumps (Zhou et al. 2019, arXiv:1812.07035)."""
    return matrix[:, :2].T.reshape(6)
