"""What an actor needs from a robot and from the person beside it. Real robots and simulators both satisfy it."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import numpy as np

from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome


@dataclass(kw_only=True, slots=True)
class Transition:
    """What happened in one control tick.

    Example:
        Transition(observation=after, reward=0.0, terminated=False, truncated=False, success=False,
                   executed_action=np.zeros(14, np.float32))
    """

    observation: Observation
    """What the robot senses after the action."""
    reward: float
    terminated: bool
    """Whether the task ended, in success or failure: nothing follows this state."""
    truncated: bool
    """Whether the episode was cut off, e.g. by the time limit, although more could have followed."""
    success: bool
    """Whether the environment itself knows that the task is solved."""
    executed_action: np.ndarray
    """float32 [A], robot units: what the robot was really commanded, after its own limits."""
    outcome: Outcome | None = None
    """What somebody other than the environment said about the episode; None where nobody did."""
    judged_by: str = ""
    """Who: `human`, `classifier`."""
    cost: float = 0.0
    """What the action itself costs, 0 or more, e.g. a toggle of the gripper. The reward has it taken off already; who
    puts another reward in its place takes it off again."""


class RobotEnv(Protocol):
    """One robot and its task, real or simulated. It never draws random numbers but from the seed of its reset.

    What a robot may have beyond this is asked for by the functions below: `keeps_time`, `emergency_stop`,
    `clear_fault`, `look`. Wrappers pass it on.
    """

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like."""
        ...

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode; equal seeds begin equal episodes where the environment can."""
        ...

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [A] for one tick and returns what came of it."""
        ...

    def render(self) -> np.ndarray:
        """Returns a picture of the scene for videos, uint8 (height, width, 3), RGB."""
        ...

    def close(self) -> None:
        """Frees the robot; it can be called twice."""
        ...


def keeps_time(env: RobotEnv) -> bool:
    """Whether the robot ends each step at the end of its tick by itself, as real ones do; nobody else paces it then."""
    return bool(getattr(env, "keeps_time", False))


def emergency_stop(env: RobotEnv, reason: str) -> None:
    """Stops a robot that has `emergency_stop(reason)` by its own means; a person has to clear it afterwards.

    Such a robot may be stopped from any thread and at any time, also in the middle of a reset, and it does not make
    the caller wait. Any other robot stops with the commands that it gets.
    """
    stop = getattr(env, "emergency_stop", None)
    if stop is not None:
        stop(reason)


def clear_fault(env: RobotEnv, *, by: str) -> None:
    """Lets a robot that has faults of its own move again; `by` names the person who says so.

    Raises:
        SafetyError, RobotError: Its alarm stays, or somebody stopped it meanwhile; so does its fault.
    """
    clear = getattr(env, "clear_fault", None)
    if clear is not None:
        clear(by=by)


def look(env: RobotEnv) -> Observation | None:
    """Returns what the sensors say now, without a command and from any thread; None where nobody can look meanwhile."""
    see = getattr(env, "look", None)
    return None if see is None else see()


class Hold(Enum):
    """What an operator says instead of an action: stand still, and do not let the policy act either."""

    HOLD = "hold"


HOLD: Final = Hold.HOLD


class Operator(Protocol):
    """The person beside the robot: may take over at any tick, and judges the episode. May be a script."""

    def reset(self) -> None:
        """A new episode begins; nobody has taken over."""
        ...

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        """Returns the person's action, float32 [A], while the person is in control, else None; called once per tick.

        HOLD: the person was in control and is gone (a lost connection); nobody acts until somebody decides.

        Args:
            observation: What the robot senses now.
            proposal: What the policy would do now, float32 [A]; None where no policy acts.
        """
        ...

    def judge(self, transition: Transition) -> Outcome | None:
        """Returns how the episode went, given its last transition; None leaves it to the environment."""
        ...
