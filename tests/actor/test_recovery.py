"""Faults are cleared by a person; what happens meanwhile is not cleared with them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from actor.recovery import Recovery
from actor.rollout import gate_of
from robot_infra import safety
from robot_infra.safety import FaultKind, Gate
from serl_launcher.errors import SafetyError
from tests.actor.tiny_robot import SPEC, TinyRobot

FAULT = SafetyError("The arm hit the table.")


@dataclass
class SlowToClear(TinyRobot):
    """A robot whose clearing takes a while, in which something else happens."""

    meanwhile: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)

    def clear_fault(self, *, by: str) -> None:
        self.meanwhile()
        self.calls.append("clear")

    def emergency_stop(self, reason: str) -> None:
        self.calls.append("stop")


@dataclass
class Clearing:
    """A person who presses Clear so many times."""

    num_left: int = 1

    def forget_clearing(self) -> None:
        pass

    def take_clearing(self) -> str | None:
        self.num_left -= 1
        return "Ada" if self.num_left >= 0 else None


def recovered(robot: SlowToClear, gate: Gate, person: Clearing) -> bool:
    """Returns whether the robot may move again; the actor is stopped once the person presses no more."""
    gate.trip(FaultKind.ROBOT, str(FAULT))
    recovery = Recovery(person=person, poll_s=0.0)
    return recovery.wait(FAULT, robot, gate, is_stopping=lambda: person.num_left < 0, on_tick=lambda: None)


def test_a_person_clears_robot_and_gate():
    robot = SlowToClear()
    gate = gate_of(robot, safety.limits_of(SPEC, []))
    assert recovered(robot, gate, Clearing())
    assert (gate.fault, robot.calls) == (None, ["clear"])


def test_a_stop_that_is_pressed_while_the_fault_is_cleared_stays():
    robot, person = SlowToClear(), Clearing()
    gate = gate_of(robot, safety.limits_of(SPEC, []))
    robot.meanwhile = lambda: gate.trip(FaultKind.EMERGENCY_STOP, "Bob pressed STOP at the console.")
    assert not recovered(robot, gate, person)
    assert gate.fault is not None
    assert gate.fault.kind is FaultKind.EMERGENCY_STOP
    assert robot.calls == ["stop", "clear", "stop"]


def test_a_stop_right_before_the_gate_is_cleared_stays_too():
    robot, person = SlowToClear(), Clearing()
    gate = gate_of(robot, safety.limits_of(SPEC, []))
    clear = gate.clear_fault

    def stopped_and_cleared(*, by: str) -> None:
        gate.trip(FaultKind.EMERGENCY_STOP, "Bob pressed STOP at the console.")
        clear(by=by)

    gate.clear_fault = stopped_and_cleared
    assert not recovered(robot, gate, person)
    assert gate.fault is not None


def test_a_stop_can_be_cleared_afterwards():
    robot, person = SlowToClear(), Clearing(num_left=2)
    gate = gate_of(robot, safety.limits_of(SPEC, []))
    stops = ["Bob pressed STOP at the console."]
    robot.meanwhile = lambda: gate.trip(FaultKind.EMERGENCY_STOP, stops.pop()) if stops else None
    assert recovered(robot, gate, person)
    assert gate.fault is None
