"""The box that the tips of a robot's arms may not leave, and where these tips are for given joints.

Legend: N configurations, A action, P points of the robot, C chains, J joints of a chain.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serl_launcher.errors import ConfigError
from serl_launcher.specs import ArmChain, RobotSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """A box that named points of the robot, e.g. its tool tips, may not leave.

    Example:
        Workspace(low=np.array([-0.5, 0.0, 0.02]), high=np.array([0.5, 0.7, 0.6]), points=tips_of)
    """

    low: np.ndarray
    """[3] in metres."""
    high: np.ndarray
    points: Callable[[np.ndarray], np.ndarray]
    """Forward kinematics: commands [N, A] to points [N, P, 3] in metres."""


def workspace_of(spec: RobotSpec) -> Workspace | None:
    """Returns the box that the tips of the robot's arms may not leave; None where its spec has none.

    Raises:
        ConfigError: A chain names an action that the robot has not.
    """
    described = spec.workspace
    if described is None:
        return None
    unknown = {name for chain in described.arms for name in chain.joints} - set(spec.action_names)
    if unknown:
        raise ConfigError(
            f"The workspace of {spec.name!r} is given by joints {sorted(unknown)}; its actions are "
            f"{list(spec.action_names)}."
        )
    columns = [[spec.action_names.index(name) for name in chain.joints] for chain in described.arms]

    def tips(commands: np.ndarray) -> np.ndarray:
        """Returns the tips of all arms, [N, C, 3] in metres, for commands [N, A]."""
        found = [
            tip_of(chain, commands[:, indices]) for chain, indices in zip(described.arms, columns, strict=True)
        ]  # fmt: skip
        return np.stack(found, axis=1)

    return Workspace(low=np.array(described.low), high=np.array(described.high), points=tips)


def tip_of(chain: ArmChain, joints: np.ndarray) -> np.ndarray:
    """Returns the end of a chain, [N, 3] in metres, for its joints [N, J] in the robot's units.

    Each joint turns about z, then moves along z, then along and about x (Denavit and Hartenberg 1955):
    Rz(theta + offset) Tz(d) Tx(a) Rx(alpha).
    """
    frame = np.broadcast_to(_base(chain), (len(joints), 4, 4))
    for link, angle in zip(chain.links, chain.to_rad * joints.astype(np.float64).T, strict=True):
        frame = frame @ _link(angle + link[3], a=link[0], alpha=link[1], d=link[2])
    return frame[:, :3, 3]


def _link(theta: np.ndarray, *, a: float, alpha: float, d: float) -> np.ndarray:
    turn, lean = (np.cos(theta), np.sin(theta)), (np.cos(alpha), np.sin(alpha))
    zero, one = np.zeros_like(theta), np.ones_like(theta)
    rows = [
        [turn[0], -turn[1] * lean[0], turn[1] * lean[1], a * turn[0]],
        [turn[1], turn[0] * lean[0], -turn[0] * lean[1], a * turn[1]],
        [zero, lean[1] * one, lean[0] * one, d * one],
        [zero, zero, zero, one],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _base(chain: ArmChain) -> np.ndarray:
    """Returns where the arm stands, [4, 4]: moved by x, y, z, turned about the vertical axis."""
    x, y, z, yaw = chain.base
    base = np.eye(4)
    base[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    base[:3, 3] = x, y, z
    return base
