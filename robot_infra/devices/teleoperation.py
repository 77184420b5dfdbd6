"""The person beside the robot as one interface, whatever is in the hand: satisfies `robot_infra.interfaces.Operator`.

    watching -- takes over (a key, or touches the device) --> driving -- lets go --> watching

The first command after a takeover is where the robot stands, so nothing jumps: a leader arm that is held elsewhere is
followed from there, and the difference fades; knobs and keys move on from there. The gate limits the rest.

A device that is gone while its person drives holds the robot: until it is back, or the person hands back by key.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from robot_infra import safety
from robot_infra.devices.axes import Axes
from robot_infra.interfaces import HOLD, Hold, Transition
from serl_launcher.errors import ConfigError, RobotError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation

logger = logging.getLogger(__name__)

TAKEOVER_KEY = "t"
OFFSET_FADES_S = 0.5
"""Time constant with which a leader arm's offset at the takeover goes away."""
RELEASED_AFTER_S = 0.5
"""A device that was touched counts as held for so long after its last motion."""


class Positions(Protocol):
    """A device that says where the robot is to be: a leader arm."""

    def positions(self) -> np.ndarray:
        """Returns the wanted action, float [A]."""
        ...


class AxesDevice(Protocol):
    """A device that says where the robot is to go: gamepad, SpaceMouse, keyboard."""

    def begin(self, *, is_open: bool) -> None:
        """The person takes over: what the gripper was told before counts no more; `is_open` is how it stands."""
        ...

    def read(self) -> Axes:
        """Returns how it is held."""
        ...


class Follower:
    """Turns a leader's positions into actions that begin where the robot stands."""

    def __init__(self, leader: Positions, spec: RobotSpec) -> None:
        self._leader = leader
        self._keep = float(np.exp(-1 / (OFFSET_FADES_S * spec.control_hz)))
        self._offset: np.ndarray | None = None

    def begin(self) -> None:
        """The person takes over with the next action."""
        self._offset = None

    def action(self, here: np.ndarray) -> np.ndarray:
        """Returns the action, float32 [A]; `here` is where the robot stands. Raises RobotError where it is silent."""
        wanted = self._leader.positions()
        self._offset = here - wanted if self._offset is None else self._keep * self._offset
        return (wanted + self._offset).astype(np.float32)

    @property
    def is_active(self) -> bool:
        """A leader arm is taken over by key only: it moves also when somebody bumps into it."""
        return False


class Mover:
    """Turns axes into actions: positions that move on from where the robot stands, or the deflection itself."""

    def __init__(self, device: AxesDevice, spec: RobotSpec, axes: Mapping[str, Sequence[object]]) -> None:
        """Takes for each action name the axis and its scale: units per second, or units where actions are no positions.

        Raises:
            ConfigError: An action, an axis or a scale makes no sense.
        """
        self._device, self._spec = device, spec
        self._is_position = safety.acts_by_position(spec)
        self._scales = dict(_axis(name, entry, spec) for name, entry in axes.items())
        self._grippers = [index for index, (axis, _) in self._scales.items() if axis == "grip"]
        self._target: np.ndarray | None = None

    def begin(self) -> None:
        """The person takes over with the next action."""
        self._target = None

    def action(self, here: np.ndarray) -> np.ndarray:
        """Returns the action, float32 [A]; `here` is where the robot stands. Raises RobotError where it is gone."""
        if self._target is None:
            self._target = here.astype(np.float32)
            self._device.begin(is_open=self._is_open(here))
        axes = self._device.read()
        if axes.is_lost:
            raise RobotError("The device in the hand is gone: plug it in and start the actor again.")
        self._target = np.clip(self._moved(self._target, axes), *self._spec.action_bounds())
        return self._target.copy()

    def _moved(self, target: np.ndarray, axes: Axes) -> np.ndarray:
        """Returns where the target goes in a tick; where actions are no positions, the deflection itself."""
        moved = target.copy() if self._is_position else np.zeros_like(target)
        low, high = self._spec.action_bounds()
        for index, (axis, scale) in self._scales.items():
            if axis != "grip":
                rate = scale / self._spec.control_hz if self._is_position else scale
                moved[index] += rate * axes.values.get(axis, 0.0)
            elif axes.grip is not None:
                span = high[index] - low[index]
                moved[index] = low[index] + axes.grip * span if self._is_position else scale * (2 * axes.grip - 1)
        return moved

    def _is_open(self, here: np.ndarray) -> bool:
        """Whether the gripper stands open; where nothing measures it, it is taken for open."""
        if not self._is_position or not self._grippers:
            return True
        low, high = self._spec.action_bounds()
        gripper = self._grippers[0]
        return bool(here[gripper] > (low[gripper] + high[gripper]) / 2)

    @property
    def is_active(self) -> bool:
        """Whether the person moves the device."""
        return self._device.read().is_active


def _axis(name: str, entry: Sequence[object], spec: RobotSpec) -> tuple[int, tuple[str, float]]:
    if len(entry) != 2 or not isinstance(entry[0], str) or not isinstance(entry[1], int | float):
        raise ConfigError(f"actor.devices.axes.{name}: expected [axis, scale], e.g. [x, 0.1]; got {list(entry)}.")
    if name not in spec.action_names:
        raise ConfigError(
            f"actor.devices.axes: {spec.name!r} has no action {name!r}; it has {list(spec.action_names)}."
        )
    return spec.action_names.index(name), (entry[0], float(entry[1]))


class Teleoperator:
    """A person with a device and, beside it, keys."""

    def __init__(
        self,
        hand: Follower | Mover,
        spec: RobotSpec,
        *,
        always_drive: bool = False,
        takes_over_by_touch: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watches.

        Args:
            hand: What the person holds.
            spec: The robot.
            always_drive: Whether the person drives every tick (demonstrations).
            takes_over_by_touch: Whether moving the device takes over; a key does in any case.
            clock: Seconds, monotonic.
        """
        self._hand, self._spec, self._clock = hand, spec, clock
        self._always_drive, self._by_touch = always_drive, takes_over_by_touch
        self._has_key_control = False
        self._touched_s = -np.inf
        self._is_driving = self._is_lost = False

    def on_key(self, key: str) -> None:
        """Takes over, or hands back, at `TAKEOVER_KEY`; other keys are somebody else's."""
        if key == TAKEOVER_KEY and self._is_lost:
            self._is_lost = self._has_key_control = False
            self._touched_s = -np.inf
        elif key == TAKEOVER_KEY:
            self._has_key_control = not self._has_key_control

    def reset(self) -> None:
        """A new episode begins; nobody has taken over. A robot whose driver's device is gone is still held."""
        self._has_key_control = self._is_driving = False
        self._touched_s = -np.inf

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        """Returns the person's action, float32 [A], while in control, else None; HOLD where the device is gone."""
        wants_control = self._wants_control()
        if not (self._is_lost or wants_control):
            self._is_driving = False
            return None
        if not self._is_driving:
            self._is_driving = True
            self._hand.begin()
        standing = safety.standing_still(self._spec, observation.state)
        try:
            action = self._hand.action(np.zeros(self._spec.action_dim) if standing is None else standing)
        except RobotError as exc:
            if not self._is_lost:
                logger.warning(
                    "The person's device is not heard, the robot holds; %r hands back: %s", TAKEOVER_KEY, exc
                )
            self._is_lost, self._is_driving = True, False
            return HOLD
        self._is_lost = False
        return action if wants_control else None

    def judge(self, transition: Transition) -> None:
        """Leaves it to the environment; verdicts by key come with the transition."""

    def _wants_control(self) -> bool:
        if self._by_touch and self._hand.is_active:
            self._touched_s = self._clock()
        is_touching = self._clock() - self._touched_s < RELEASED_AFTER_S
        return self._always_drive or self._has_key_control or is_touching
