"""The person at the console, in front of whoever stands beside the robot."""

from dataclasses import dataclass

import numpy as np

from actor.console.desk import Desk, Mode, axis_of
from robot_infra import safety
from robot_infra.devices.teleoperation import Mover
from robot_infra.interfaces import HOLD, Hold, Operator, Transition
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome


@dataclass(kw_only=True, slots=True)
class ConsolePerson:
    """Satisfies `robot_infra.interfaces.Operator`: the console drives, or the other person, where there is one."""

    desk: Desk
    hand: Mover
    spec: RobotSpec
    beside: Operator | None
    _is_driving: bool = False

    def reset(self) -> None:
        """A new episode begins; nobody has taken over."""
        self._is_driving = False
        self.desk.begin_episode()
        if self.beside is not None:
            self.beside.reset()

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        """Returns what the console says; HOLD where its driver is gone."""
        mode = self.desk.mode
        if mode is Mode.HOLDING:
            self._is_driving = False
            return HOLD
        if mode is Mode.WATCHING:
            self._is_driving = False
            return None if self.beside is None else self.beside.command(observation, proposal)
        if not self._is_driving:
            self._is_driving = True
            self.hand.begin()
        here = safety.standing_still(self.spec, observation.state)
        return self.hand.action(np.zeros(self.spec.action_dim) if here is None else here)

    def judge(self, transition: Transition) -> Outcome | None:
        """Leaves it to the other person, or to the environment; verdicts of the console come with the transition."""
        return None if self.beside is None else self.beside.judge(transition)


def jogging(desk: Desk, spec: RobotSpec, *, jog_speed: float) -> Mover:
    """Returns the hand that moves each action by an axis of its own.

    Args:
        desk: The console.
        spec: The robot.
        jog_speed: Share of an action's range per second at full deflection, or of the range where actions are no
            positions.
    """
    low, high = spec.action_bounds()
    speeds = jog_speed * (high - low)
    if safety.acts_by_position(spec) and spec.max_speed:
        speeds = np.minimum(speeds, np.broadcast_to(np.asarray(spec.max_speed), speeds.shape))
    return Mover(
        desk, spec, {name: [axis_of(name), float(speed)] for name, speed in zip(spec.action_names, speeds, strict=True)}
    )
