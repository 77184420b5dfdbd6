"""The gate between any wish and any robot: one per robot, used at every tick, with no switch that turns it off.

    idle -- begin --> guarding -- a fault --> faulted -- clear_fault(by=a person) --> guarding

While guarding, `admit` gives commands that keep every limit. While faulted it raises, and `hold` brakes and then stays.
Drivers trip it for what they find themselves: the emergency stop, an alarm, a frozen camera. Whoever stops the robot in
an emergency trips it too; it tells the robot at once, from whatever thread, and also where another fault is latched.
"""

from collections.abc import Callable

import numpy as np

from robot_infra.safety.faults import Fault, FaultKind, FaultLatch
from robot_infra.safety.limits import (
    SafetyLimits,
    require_continuous,
    require_finite,
    require_shape,
    within_bounds,
)
from robot_infra.safety.motion import Motion, braking_motion, executed_motion, next_motion
from serl_launcher.errors import SafetyError


class Gate:
    """Turns wishes into commands that keep every limit, and remembers how the robot moves."""

    def __init__(
        self, limits: SafetyLimits, *, max_tracking_error: float = float("inf"),
        on_emergency_stop: Callable[[str], None] = lambda reason: None,
    ) -> None:  # fmt: skip
        """Guards a robot with these limits.

        Args:
            limits: What the robot allows.
            max_tracking_error: Measured positions further than this from the command are a fault (it hit something).
            on_emergency_stop: Stops the robot by its own means; told the reason, must not wait.
        """
        self.limits = limits
        self._max_tracking_error, self._on_emergency_stop = max_tracking_error, on_emergency_stop
        self._latch = FaultLatch()
        self._motion: Motion | None = None
        self._last_wish: np.ndarray | None = None

    @property
    def fault(self) -> Fault | None:
        """Why the robot holds; None while all is well."""
        return self._latch.fault

    @property
    def num_faults(self) -> int:
        """Faults so far, those that came while another was latched included."""
        return self._latch.num_faults

    @property
    def last_command(self) -> np.ndarray | None:
        """The command that the robot follows, float32 [A]; None before the first."""
        return None if self._motion is None else self._command()

    @property
    def is_moving(self) -> bool:
        """Whether the commands so far leave the robot in motion."""
        return self._motion is not None and not self._motion.is_resting

    def begin(self, standing: np.ndarray | None) -> None:
        """Starts an episode from rest at the measured position [A]; None where actions are no positions."""
        self._last_wish = None
        if standing is None:
            self._motion = None
            return
        self._require(require_finite, standing, kind=FaultKind.NOT_FINITE)
        self._motion = Motion.at_rest(standing)

    def admit(self, action: np.ndarray) -> np.ndarray:
        """Returns the command for this tick, float32 [A], as near to the action as the limits allow.

        Raises:
            SafetyError: A fault is latched, or this action causes one: another width, not finite, a jump.
        """
        self._latch.require_clear()
        self._require(lambda wish: require_shape(wish, self.limits), action, kind=FaultKind.WRONG_SHAPE)
        self._require(require_finite, action, kind=FaultKind.NOT_FINITE)
        if self._motion is None:
            self._motion = Motion.at_rest(within_bounds(action, self.limits.low, self.limits.high))
            return self._command()
        last = self._motion.position
        self._require(lambda wish: require_continuous(wish, last, self.limits), action, kind=FaultKind.JUMP)
        self._motion = next_motion(action, self._motion, self.limits, last_wish=self._last_wish)
        self._last_wish = action.copy()
        return self._command()

    def hold(self) -> np.ndarray | None:
        """Returns the command that brakes and then stays, also while a fault is latched; None before any command."""
        if self._motion is None:
            return None
        self._motion = braking_motion(self._motion, self.limits)
        self._last_wish = None
        return self._command()

    def note_executed(self, executed: np.ndarray) -> None:
        """Takes over what the robot was really commanded, where it has limits of its own."""
        if self._motion is not None and not np.allclose(executed, self._motion.position, atol=1e-5):
            self._motion = executed_motion(executed, self._motion, self.limits)

    def check_tracking(self, measured: np.ndarray) -> None:
        """Latches a fault where the measured positions [A] are not finite or far from the command."""
        if self._motion is None:
            return
        error = np.abs(measured - self._motion.position)
        if not (error <= self._max_tracking_error).all():
            joint = int(np.argmax(np.where(np.isfinite(error), error, np.inf)))
            self.trip(
                FaultKind.TRACKING,
                f"joint {joint} is at {measured[joint]:g} and was commanded to {self._motion.position[joint]:g}.",
            )

    def require_clear(self) -> None:
        """Raises SafetyError while a fault is latched."""
        self._latch.require_clear()

    def trip(self, kind: FaultKind, message: str) -> None:
        """Latches a fault that somebody else found: the robot, a camera, the emergency stop."""
        self._latch.trip(Fault(kind=kind, message=message))
        if kind is FaultKind.EMERGENCY_STOP:
            self._on_emergency_stop(message)

    def clear_fault(self, *, by: str, seen: int | None = None) -> None:
        """Lets the robot move again; `by` names the person who says so, `seen` is as in `FaultLatch.clear`."""
        self._latch.clear(by=by, seen=seen)

    def _command(self) -> np.ndarray:
        assert self._motion is not None, "Only called where there is a motion."
        return self._motion.position.astype(np.float32)

    def _require(self, rule: Callable[[np.ndarray], object], wish: np.ndarray, *, kind: FaultKind) -> None:
        try:
            rule(wish)
        except SafetyError as exc:
            self.trip(kind, str(exc))
            raise
