"""Who has the robot at the console, and what that person wants: between the page's thread and the control loop.

    watching -- takes over --> driving -- hands back --> watching
                                  |
                      is not heard any more (deadman)
                                  v
                               holding -- somebody takes over --> driving
                                       -- somebody hands back --> watching

One viewer at a time has the seat: only that one drives, judges and clears faults. The first who does anything gets it;
it is free again when its connection ends. Everybody may stop the robot. Nothing here waits.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from actor.rewards.bus import RewardBus, Verdict
from robot_infra.devices.axes import Axes
from serl_launcher.errors import Refused
from serl_launcher.types import Outcome

logger = logging.getLogger(__name__)

Stop = Callable[[str], None]


def axis_of(action: str) -> str:
    """Returns the name of the axis that moves an action; no name of a stick or knob."""
    return f"action {action}"


class Mode(StrEnum):
    """What the console does to the robot."""

    WATCHING = "watching"
    DRIVING = "driving"
    HOLDING = "holding"


class Desk:
    """Satisfies `robot_infra.devices.teleoperation.AxesDevice`; it has one axis per action (`axis_of`)."""

    def __init__(
        self, bus: RewardBus, *, deadman_s: float, always_drive: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Nobody has the seat.

        Args:
            bus: Where verdicts go.
            deadman_s: A driving person is gone after so much silence.
            always_drive: Whether there is no policy to hand back to (demonstrations): an episode begins as it ended.
            clock: Seconds, monotonic.
        """
        self._bus, self._deadman_s, self._always_drive, self._clock = bus, deadman_s, always_drive, clock
        self._lock = threading.Lock()
        self._seat: int | None = None
        self._name = ""
        self._mode = Mode.WATCHING
        self._axes: dict[str, float] = {}
        self._heard_s = 0.0
        self._cleared_by: str | None = None
        self._stop: Stop = lambda reason: None

    def on_stop(self, stop: Stop) -> None:
        """Sets what stops the robot; it is called in the page's thread, with the reason."""
        self._stop = stop

    # What the page's thread calls.

    def claim(self, viewer: int, name: str) -> None:
        """Gives the seat to a viewer; raises Refused where somebody else has it."""
        with self._lock:
            self._require_seat(viewer, name)

    def release(self, viewer: int) -> None:
        """Takes the seat from a viewer, whose connection ended or who gives it back; a robot it drives holds still."""
        with self._lock:
            if self._seat != viewer:
                return
            self._seat, self._axes = None, {}
            if self._mode is Mode.DRIVING:
                self._mode = Mode.HOLDING
                logger.warning("%s let go of the console while driving: the robot holds still.", self._name)

    def heard(self, viewer: int, axes: Mapping[str, float]) -> None:
        """Notes that a viewer is there, and how it deflects the actions, each in [-1, 1]; only the seat's counts."""
        with self._lock:
            if self._seat == viewer:
                self._notice_silence()
                self._heard_s = self._clock()
                self._axes = {axis_of(action): max(-1.0, min(1.0, value)) for action, value in axes.items()}

    def take_over(self, viewer: int, name: str) -> None:
        """The person drives from now on; raises Refused where somebody else has the seat."""
        with self._lock:
            self._require_seat(viewer, name)
            if self._mode is not Mode.DRIVING:
                logger.info("%s takes over at the console.", name)
            self._mode, self._heard_s, self._axes = Mode.DRIVING, self._clock(), {}

    def hand_back(self, viewer: int, name: str) -> None:
        """The policy, or whoever stands beside the robot, acts again; raises Refused likewise."""
        with self._lock:
            self._require_seat(viewer, name)
            if self._mode is not Mode.WATCHING:
                logger.info("%s hands back at the console.", name)
            self._mode, self._axes = Mode.WATCHING, {}

    def judge(self, viewer: int, name: str, outcome: Outcome, *, corrects_last: bool = False) -> None:
        """Judges the running episode, or corrects the label of the one before; raises Refused likewise."""
        with self._lock:
            self._require_seat(viewer, name)
        self._bus.post(Verdict(outcome=outcome, by="human", corrects_last=corrects_last))

    def stop(self, name: str) -> None:
        """Stops the robot, whoever says so; the fault stays until a person clears it."""
        logger.warning("%s pressed STOP at the console.", name)
        self.forget_clearing()
        self._stop(f"{name} pressed STOP at the console.")

    def clear(self, viewer: int, name: str) -> None:
        """Says that the robot may move again; raises Refused where somebody else has the seat."""
        with self._lock:
            self._require_seat(viewer, name)
            self._cleared_by = name

    # What the control loop calls.

    @property
    def mode(self) -> Mode:
        """What the console does to the robot now; notices a driver who is gone."""
        with self._lock:
            self._notice_silence()
            return self._mode

    @property
    def holder(self) -> str:
        """Name of the person who has the seat; empty: nobody."""
        return self._name if self._seat is not None else ""

    @property
    def seat(self) -> int | None:
        """Viewer that has the seat."""
        return self._seat

    def begin(self, *, is_open: bool) -> None:
        """The person takes over; there is no gripper button here that could have been pressed before."""

    def read(self) -> Axes:
        """Returns the deflections of a person who drives; none otherwise."""
        with self._lock:
            self._notice_silence()
            return Axes(values=dict(self._axes) if self._mode is Mode.DRIVING else {})

    def begin_episode(self) -> None:
        """A new episode begins: who drove does not drive any more; a robot that was lost is still held."""
        with self._lock:
            if self._mode is Mode.DRIVING and not self._always_drive:
                self._mode = Mode.WATCHING

    def forget_clearing(self) -> None:
        """A new fault is there: what was cleared before does not count."""
        self._cleared_by = None

    def take_clearing(self) -> str | None:
        """Returns who cleared the fault, once; None where nobody did."""
        with self._lock:
            name, self._cleared_by = self._cleared_by, None
            return name

    def _require_seat(self, viewer: int, name: str) -> None:
        if self._seat not in (None, viewer):
            raise Refused(f"{self._name} is in control. Ask for it to be released; STOP works for everybody.")
        if self._seat is None:
            self._heard_s = self._clock()
        self._seat, self._name = viewer, name

    def _notice_silence(self) -> None:
        silent_s = self._clock() - self._heard_s
        if self._mode is Mode.DRIVING and silent_s > self._deadman_s:
            self._mode, self._axes = Mode.HOLDING, {}
            logger.warning("%s drove and is silent for %.1f s: the robot holds still.", self._name, silent_s)
