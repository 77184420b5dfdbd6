"""Faults latch: the first one stays until a person clears it, and until then every command is a hold."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum

from serl_launcher.errors import SafetyError


class FaultKind(StrEnum):
    """What can go wrong between a wish and a robot."""

    NOT_FINITE = "not_finite"
    WRONG_SHAPE = "wrong_shape"
    JUMP = "jump"
    TRACKING = "tracking"
    EMERGENCY_STOP = "emergency_stop"
    ROBOT = "robot"
    CAMERA = "camera"
    CONNECTION = "connection"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Why a robot holds.

    Example:
        Fault(kind=FaultKind.EMERGENCY_STOP, message="Left arm: the emergency stop is pressed.")
    """

    kind: FaultKind
    message: str


@dataclass(slots=True)
class FaultLatch:
    """Remembers the first fault; it knows no clock, time heals nothing.

    States: clear -- trip --> faulted -- clear(by=a person) --> clear.
    """

    fault: Fault | None = None
    num_faults: int = 0
    """Faults so far, those that came while another was latched included."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def trip(self, fault: Fault) -> None:
        """Latches a fault; a later one changes nothing but the count."""
        with self._lock:
            self.num_faults += 1
            if self.fault is None:
                self.fault = fault

    def clear(self, *, by: str, seen: int | None = None) -> None:
        """Takes the fault back.

        Args:
            by: The person who answers for it.
            seen: `num_faults` when that person said so. Whoever stops a robot while it is being made ready is not
                overruled by who said earlier that it may move. None: every fault so far is meant.

        Raises:
            SafetyError: Nobody answers for it, or another fault came since; all stays latched.
        """
        if not by.strip():
            raise SafetyError("A latched fault is cleared by a person, who must be named; nobody was.")
        with self._lock:
            if seen not in (None, self.num_faults):
                raise SafetyError(
                    f"Another fault came while {by} cleared the one before, or somebody stopped the robot again: it "
                    "stays latched. Look at the robot, then clear it again."
                )
            self.fault = None

    def require_clear(self) -> None:
        """Raises SafetyError while a fault is latched."""
        if self.fault is not None:
            raise SafetyError(
                f"The robot holds because of a fault ({self.fault.kind}): {self.fault.message} "
                "Remove its cause, then let a person clear it."
            )
