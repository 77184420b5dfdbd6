"""The robots that are known by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serl_launcher.errors import ConfigError
from serl_launcher.transforms import aloha, droid, lbm, libero, ur5, yam
from serl_launcher.transforms.actions import AbsoluteActions, DeltaActions, make_bool_mask
from serl_launcher.transforms.group import Group
from serl_launcher.transforms.slots import ModelType


@dataclass(frozen=True, kw_only=True, slots=True)
class RobotTransforms:
    """What is known about one robot."""

    build: Callable[[ModelType], Group]
    """Makes the transforms for a model."""
    example: Callable[[], dict[str, Any]]
    """Makes an observation as the robot sends it."""
    state_dim: int
    action_dim: int
    control_hz: float
    """At which the published policies were recorded."""
    delta_mask: np.ndarray | None = None
    """Which actions the published policies predict relative to the state; None: none."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What a server tells the robot's client."""

    def group(self, model_type: ModelType, *, delta_actions: bool = False) -> Group:
        """Returns the robot's transforms, with relative actions next to the model where asked for."""
        group = self.build(model_type)
        if not delta_actions:
            return group
        if self.delta_mask is None:
            raise ConfigError("This robot's policies predict absolute actions; leave delta_actions off.")
        return group.push(Group(inputs=(DeltaActions(self.delta_mask),), outputs=(AbsoluteActions(self.delta_mask),)))


_ROBOTS: dict[str, RobotTransforms] = {
    "aloha": RobotTransforms(
        build=lambda _model: Group(inputs=(aloha.AlohaInputs(),), outputs=(aloha.AlohaOutputs(),)),
        example=aloha.example,
        state_dim=aloha.STATE_DIM,
        action_dim=aloha.ACTION_DIM,
        control_hz=50.0,
        delta_mask=make_bool_mask(6, -1, 6, -1),
        metadata=aloha.METADATA,
    ),
    "droid": RobotTransforms(
        build=lambda model: Group(inputs=(droid.DroidInputs(model_type=model),), outputs=(droid.DroidOutputs(),)),
        example=droid.example,
        state_dim=droid.STATE_DIM,
        action_dim=droid.ACTION_DIM,
        control_hz=15.0,
        delta_mask=make_bool_mask(7, -1),
    ),
    "libero": RobotTransforms(
        build=lambda model: Group(inputs=(libero.LiberoInputs(model_type=model),), outputs=(libero.LiberoOutputs(),)),
        example=libero.example,
        state_dim=libero.STATE_DIM,
        action_dim=libero.ACTION_DIM,
        control_hz=20.0,
        delta_mask=make_bool_mask(6, -1),
    ),
    "ur5": RobotTransforms(
        build=lambda model: Group(inputs=(ur5.Ur5Inputs(model_type=model),), outputs=(ur5.Ur5Outputs(),)),
        example=ur5.example,
        state_dim=ur5.STATE_DIM,
        action_dim=ur5.ACTION_DIM,
        control_hz=20.0,
        delta_mask=make_bool_mask(6, -1),
    ),
    "yam": RobotTransforms(
        build=lambda _model: Group(inputs=(yam.YamInputs(),), outputs=(yam.YamOutputs(),)),
        example=yam.example,
        state_dim=yam.STATE_DIM,
        action_dim=yam.ACTION_DIM,
        control_hz=30.0,
    ),
    "lbm": RobotTransforms(
        build=lambda _model: Group(inputs=(lbm.LbmInputs(),), outputs=(lbm.LbmOutputs(),)),
        example=lbm.example,
        state_dim=lbm.STATE_DIM,
        action_dim=lbm.ACTION_DIM,
        control_hz=10.0,
    ),
}


def robot_names() -> list[str]:
    """Returns the names of all robots."""
    return sorted(_ROBOTS)


def robot_transforms(name: str) -> RobotTransforms:
    """Returns what is known about a robot; raises ConfigError that suggests the nearest name."""
    if name not in _ROBOTS:
        near = difflib.get_close_matches(name, _ROBOTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Robot must be one of {robot_names()}, got {name!r}.{hint}")
    return _ROBOTS[name]
