"""Kinematics of one arm of `sim_pnp`: six joints, a gripper that the person keeps pointing down.

Joints, in radians: 0 base yaw (0 looks along +y), 1 shoulder pitch, 2 elbow pitch, 3 wrist pitch, 4 wrist yaw,
5 wrist roll. Pitches add up along the chain; 0 is horizontal, positive is up. The tip is the point between the fingers.
Frames: x right, y away from the bases, z up, in metres, origin on the table between the bases.
"""

import numpy as np

NUM_JOINTS = 6
SHOULDER_HEIGHT_M = 0.12
UPPER_ARM_M = 0.28
FOREARM_M = 0.28
HAND_M = 0.10
BASES = np.array([[-0.20, 0.0, 0.0], [0.20, 0.0, 0.0]])
"""Bases of the left and the right arm."""
JOINT_LOW = np.array([-2.2, -0.6, -2.8, -2.6, -1.6, -0.8])
JOINT_HIGH = np.array([2.2, 2.6, 0.2, 1.2, 1.6, 0.8])


def chain_points(joints: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Returns shoulder, elbow, wrist and tip, [4, 3] in metres, for joints [6]."""
    pitches = np.cumsum(joints[1:4])
    radii = np.cumsum(np.array([UPPER_ARM_M, FOREARM_M, HAND_M]) * np.cos(pitches))
    heights = SHOULDER_HEIGHT_M + np.cumsum(np.array([UPPER_ARM_M, FOREARM_M, HAND_M]) * np.sin(pitches))
    outward, sideways = planar_axes(joints[0])
    points = np.empty((4, 3))
    points[0] = base + np.array([0.0, 0.0, SHOULDER_HEIGHT_M])
    points[1:, :2] = base[:2] + radii[:, None] * outward
    points[1:, 2] = heights
    points[3, :2] += HAND_M * np.sin(joints[5]) * sideways
    return points


def tip_position(joints: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Returns the point between the fingers, [3] in metres."""
    return chain_points(joints, base)[3]


def planar_axes(yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the unit vectors that point away from the base and to its right, [2] each."""
    return np.array([np.sin(yaw), np.cos(yaw)]), np.array([np.cos(yaw), -np.sin(yaw)])


def joints_for_tip(tip: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Returns joints [6] that bring the tip to a point with the gripper pointing straight down.

    Closed form: yaw towards the point, then a two-link arm with the elbow up. A point out of reach is approached along
    the line to it.
    """
    offset = tip[:2] - base[:2]
    yaw = float(np.arctan2(offset[0], offset[1]))
    radius = float(np.hypot(*offset))
    height = float(tip[2]) + HAND_M - SHOULDER_HEIGHT_M
    distance = min(np.hypot(radius, height), 0.999 * (UPPER_ARM_M + FOREARM_M))
    elevation = np.arctan2(height, radius)
    cos_elbow = (distance**2 - UPPER_ARM_M**2 - FOREARM_M**2) / (2 * UPPER_ARM_M * FOREARM_M)
    elbow = -np.arccos(np.clip(cos_elbow, -1.0, 1.0))
    shoulder = elevation - np.arctan2(FOREARM_M * np.sin(elbow), UPPER_ARM_M + FOREARM_M * np.cos(elbow))
    wrist = -np.pi / 2 - shoulder - elbow
    return np.clip(np.array([yaw, shoulder, elbow, wrist, 0.0, 0.0]), JOINT_LOW, JOINT_HIGH)
