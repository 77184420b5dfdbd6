"""Emergency stops on their way to a robot's own computer: at any time, and stronger than whoever clears them."""

import threading
from contextlib import closing

import pytest

from serl_launcher.errors import SafetyError
from serl_launcher.types import Observation
from tests.actor.tiny_robot import TinyRobot
from tests.robot_infra.serve.test_serve import command, connect, serving, wait_until


class SlowRobot(TinyRobot):
    """Takes its time for a reset, and can be stopped meanwhile."""

    def __init__(self) -> None:
        super().__init__(max_steps=100)
        self.is_resetting, self.stopped = threading.Event(), threading.Event()
        self.cleared_by: list[str] = []
        self.reasons: list[str] = []

    def reset(self, *, seed: int) -> Observation:
        self.is_resetting.set()
        if self.stopped.wait(15 if seed else 0):
            raise SafetyError("stopped in the middle of the reset")
        return super().reset(seed=seed)

    def emergency_stop(self, reason: str) -> None:
        self.reasons.append(reason)
        self.stopped.set()

    def clear_fault(self, *, by: str) -> None:
        self.stopped.clear()
        self.cleared_by.append(by)


def test_an_emergency_stop_is_heard_in_the_middle_of_a_reset_and_stays_until_a_person_clears_it():
    robot = SlowRobot()
    with serving(robot) as server, closing(connect(server)) as remote:
        raised: list[BaseException] = []

        def reset() -> None:
            with pytest.raises(SafetyError, match="in the middle") as caught:
                remote.reset(seed=1)
            raised.append(caught.value)

        resetting = threading.Thread(target=reset)
        resetting.start()
        assert robot.is_resetting.wait(10)
        remote.emergency_stop("Ada said so.")
        resetting.join(10)
        assert raised
        assert robot.stopped.is_set()
        with pytest.raises(SafetyError, match="Ada said so"):
            remote.reset(seed=0)
        remote.clear_fault(by="Ada")
        assert robot.cleared_by == ["Ada"]
        remote.reset(seed=0)
        remote.step(command(0.0))


def test_a_stop_while_a_fault_is_being_cleared_stays(monkeypatch: pytest.MonkeyPatch):
    robot = SlowRobot()
    with serving(robot) as server, closing(connect(server)) as remote:
        remote.reset(seed=0)
        remote.emergency_stop("Ada said so.")
        wait_until(robot.stopped.is_set)
        clear = robot.clear_fault

        def clear_while_somebody_stops(*, by: str) -> None:
            remote.emergency_stop("Ben said no.")
            wait_until(lambda: robot.reasons == ["Ada said so.", "Ben said no."])
            clear(by=by)

        monkeypatch.setattr(robot, "clear_fault", clear_while_somebody_stops)
        with pytest.raises(SafetyError):
            remote.clear_fault(by="Ada")
        with pytest.raises(SafetyError):
            remote.step(command(0.0))
        monkeypatch.setattr(robot, "clear_fault", clear)
        remote.clear_fault(by="Ada")
        remote.reset(seed=0)
