"""After a fault: the robot holds until a person clears it; without one, the actor ends with the fault."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from robot_infra.interfaces import RobotEnv, clear_fault
from robot_infra.safety import FaultKind, Gate
from serl_launcher.errors import HiorsError, RobotError, SafetyError

logger = logging.getLogger(__name__)


class ClearingPerson(Protocol):
    """Who may clear faults; `actor.console.desk.Desk` is one."""

    def forget_clearing(self) -> None:
        """A new fault is there: what was cleared before does not count."""
        ...

    def take_clearing(self) -> str | None:
        """Returns who cleared the fault, once; None where nobody did."""
        ...


@dataclass(kw_only=True, slots=True)
class Recovery:
    """Waits for the person, then lets robot and gate move again."""

    person: ClearingPerson
    poll_s: float = 0.05
    reason: str = ""
    """Why the robot waits for a person; empty while it does not."""

    def wait(
        self, fault: HiorsError, env: RobotEnv, gate: Gate, *, is_stopping: Callable[[], bool],
        on_tick: Callable[[], None],
    ) -> bool:  # fmt: skip
        """Returns True once a person cleared the fault; False where the actor is to stop."""
        if gate.fault is None or gate.fault.kind is not FaultKind.EMERGENCY_STOP:
            self.person.forget_clearing()  # After a STOP the person may have cleared it while the loop was busy.
        self.reason = str(fault)
        logger.error("The robot holds until a person clears this: %s", fault)
        try:
            while not is_stopping():
                num_faults = gate.num_faults
                name = self.person.take_clearing()
                if name is not None and self._is_cleared(env, gate, name, num_faults):
                    return True
                on_tick()
                time.sleep(self.poll_s)
        finally:
            self.reason = ""
        return False

    def _is_cleared(self, env: RobotEnv, gate: Gate, name: str, num_faults: int) -> bool:
        """Clears the robot first: where its alarm stays, so does the fault.

        A STOP that came since there were `num_faults` is not taken back by a clearing that was said before it: the
        robot is stopped again.
        """
        try:
            clear_fault(env, by=name)
            gate.clear_fault(by=name)
        except (SafetyError, RobotError) as exc:
            self.reason = str(exc)
            logger.error("%s tried to clear the fault, but the robot still refuses: %s", name, exc)
            return False
        if gate.num_faults != num_faults:
            self.reason = f"STOP was pressed while {name} cleared a fault."
            gate.trip(FaultKind.EMERGENCY_STOP, self.reason)
            logger.error("The robot holds: %s", self.reason)
            return False
        logger.warning("%s cleared the fault; the next episode begins.", name)
        return True
