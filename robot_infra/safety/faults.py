"""Faults latch: the first one stays until a person clears it, and until then every command is a hold."""

from dataclasses import dataclass
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

    def trip(self, fault: Fault) -> None:
        """Latches a fault; a later one changes nothing but the count."""
        self.num_faults += 1
        if self.fault is None:
            self.fault = fault

    def clear(self, *, by: str) -> None:
        """Takes the fault back; raises SafetyError where nobody answers for it."""
        if not by.strip():
            raise SafetyError("A latched fault is cleared by a person, who must be named; nobody was.")
        self.fault = None

    def require_clear(self) -> None:
        """Raises SafetyError while a fault is latched."""
        if self.fault is not None:
            raise SafetyError(
                f"The robot holds because of a fault ({self.fault.kind}): {self.fault.message} "
                "Remove its cause, then let a person clear it."
            )
