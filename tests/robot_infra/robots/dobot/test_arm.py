import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from robot_infra.devices.feetech import FeetechGripper
from robot_infra.robots.dobot.arm import DobotArm
from robot_infra.robots.dobot.dashboard import Dashboard
from robot_infra.robots.dobot.emulator.controller import ArmPhysics, EmulatedController
from robot_infra.robots.dobot.emulator.servos import EmulatedGripper
from robot_infra.robots.dobot.options import ArmConfig, GripperConfig
from robot_infra.safety import FaultKind
from serl_launcher.errors import RobotError, SafetyError

START = np.array([0.1, -0.2, 0.3, 0.0, 0.2, 0.0])
PERIOD_S = 0.05


@pytest.fixture
def controller() -> Iterator[EmulatedController]:
    emulated = EmulatedController(ArmPhysics(joints=START.copy(), low=np.full(6, -3.0), high=np.full(6, 3.0)))
    yield emulated
    emulated.close()


@pytest.fixture
def arm(controller: EmulatedController) -> Iterator[DobotArm]:
    opened = connect(controller)
    yield opened
    opened.close()


def connect(controller: EmulatedController, **more: object) -> DobotArm:
    config = ArmConfig(
        host="127.0.0.1", dashboard_port=controller.dashboard_port, feedback_port=controller.feedback_port,
        timeout_s=3.0, **{"silent_after_s": 3.0} | more,
    )  # fmt: skip
    return DobotArm("left", config, period_s=PERIOD_S)


def wait_until(condition: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        time.sleep(0.01)


def fault_of(arm: DobotArm) -> FaultKind | None:
    return None if arm.faults.fault is None else arm.faults.fault.kind


def target(offset: float) -> np.ndarray:
    return np.append(START + offset, 1.0)


def test_an_arm_is_enabled_and_says_where_it_is(controller: EmulatedController, arm: DobotArm):
    assert controller.physics.is_enabled
    np.testing.assert_allclose(arm.position(), [*START, 1.0], atol=1e-5)


def test_an_arm_goes_where_it_is_commanded_and_stays_there(controller: EmulatedController, arm: DobotArm):
    arm.command(target(0.1))
    wait_until(lambda: np.abs(controller.physics.joints - START - 0.1).max() < 1e-3)
    time.sleep(0.2)
    np.testing.assert_allclose(arm.position()[:6], START + 0.1, atol=2e-3)


def test_an_arm_moves_on_the_line_between_two_commands(controller: EmulatedController, arm: DobotArm):
    arm.command(target(0.2))
    time.sleep(PERIOD_S / 2)
    assert controller.physics.target[0] < START[0] + 0.2


def test_two_commands_at_once_get_the_time_of_two(controller: EmulatedController, arm: DobotArm):
    """A late tick is followed by the next one at once: neither may be driven faster than it was made."""
    began_s = time.monotonic()
    arm.command(target(0.1))
    arm.command(target(0.2))
    while controller.physics.target[0] < START[0] + 0.2 - 1e-9:
        share = (time.monotonic() - began_s) / (2 * PERIOD_S)
        assert controller.physics.target[0] <= START[0] + 0.2 * share + 1e-6
        time.sleep(0.001)
    assert time.monotonic() - began_s >= 2 * PERIOD_S


def test_silence_is_a_hold_and_no_fault(controller: EmulatedController, arm: DobotArm):
    arm.command(target(0.1))
    wait_until(lambda: arm.num_holds == 1)
    arm.command(target(0.0))
    wait_until(lambda: np.abs(controller.physics.joints - START).max() < 1e-3)
    assert arm.faults.fault is None


def test_the_emergency_stop_latches_and_only_a_person_clears_it(controller: EmulatedController, arm: DobotArm):
    controller.press_emergency_stop()
    wait_until(lambda: fault_of(arm) is FaultKind.ROBOT)
    with pytest.raises(SafetyError):
        arm.command(target(0.1))
    with pytest.raises(RobotError, match="ClearError"):
        arm.clear_fault(by="Ada")
    controller.release_emergency_stop()
    arm.clear_fault(by="Ada")
    arm.command(target(0.05))
    wait_until(lambda: np.abs(controller.physics.joints - START - 0.05).max() < 1e-2)


def test_an_arm_with_an_alarm_is_not_taken_over_by_a_restart(controller: EmulatedController):
    controller.physics.has_error = True
    with pytest.raises(SafetyError, match="alarm"):
        connect(controller)
    assert controller.physics.has_error


def test_the_emergency_stop_can_be_called_from_here(controller: EmulatedController, arm: DobotArm):
    arm.emergency_stop("Ada said so.")
    wait_until(lambda: controller.physics.is_stopped)
    assert fault_of(arm) is FaultKind.EMERGENCY_STOP


@pytest.mark.parametrize("trouble", ["drop_feedback", "garbage_feedback", "nan_feedback"])
def test_without_usable_feedback_the_arm_is_not_commanded(controller: EmulatedController, trouble: str):
    arm = connect(controller, silent_after_s=0.5)
    setattr(controller.trouble, trouble, True)
    wait_until(lambda: fault_of(arm) is FaultKind.CONNECTION)
    points = controller.physics.num_points
    time.sleep(0.15)
    assert controller.physics.num_points <= points + 1
    setattr(controller.trouble, trouble, False)
    with pytest.raises(SafetyError):
        arm.command(target(0.1))
    arm.close()


def test_after_garbage_the_next_packet_is_found(controller: EmulatedController, arm: DobotArm):
    controller.trouble.garbage_feedback = True
    wait_until(lambda: arm.feedback.num_bad > 3)
    controller.trouble.garbage_feedback = False
    wait_until(lambda: time.monotonic() - arm.feedback.newest(max_age_s=9.0).received_s < 0.5)


@pytest.mark.parametrize(("trouble", "value"), [("drop_commands", True), ("delay_answers_s", 30.0)])
def test_a_controller_that_does_not_answer_is_a_fault(
    controller: EmulatedController, arm: DobotArm, trouble: str, value: object
):
    setattr(controller.trouble, trouble, value)
    wait_until(lambda: fault_of(arm) is FaultKind.CONNECTION)


def test_a_point_outside_of_the_controllers_limits_stops_the_arm(controller: EmulatedController, arm: DobotArm):
    arm.command(np.append(np.full(6, 3.2), 1.0))
    wait_until(lambda: arm.faults.fault is not None)


def test_an_arm_drives_its_gripper(controller: EmulatedController):
    gripper = EmulatedGripper()
    opened = connect(controller, gripper=GripperConfig(port=gripper.line.path, timeout_s=1.0, silent_after_s=5.0))
    try:
        opened.command(np.append(START, 0.3))
        wait_until(lambda: abs(gripper.goal - 0.3) < 0.01)
        gripper.measured = 0.4
        wait_until(lambda: abs(opened.position()[6] - 0.4) < 0.01)
    finally:
        opened.close()
        gripper.line.close()


@pytest.mark.parametrize("broken", ["opening", "command"])
def test_whatever_goes_wrong_with_a_gripper_is_a_fault_of_its_arm(
    controller: EmulatedController, monkeypatch: pytest.MonkeyPatch, broken: str
):
    gripper = EmulatedGripper()

    def fail(*arguments: object) -> None:
        raise IndexError("index out of range")

    opened = connect(controller, gripper=GripperConfig(port=gripper.line.path, timeout_s=1.0, silent_after_s=5.0))
    try:
        monkeypatch.setattr(FeetechGripper, broken, fail)
        wait_until(lambda: fault_of(opened) is FaultKind.ROBOT)
        with pytest.raises(SafetyError, match="index out of range"):
            opened.command(target(0.1))
    finally:
        opened.close()
        gripper.line.close()


def test_whatever_goes_wrong_while_an_arm_is_commanded_is_a_fault(
    controller: EmulatedController, arm: DobotArm, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object, **more: object) -> None:
        raise ValueError("a mistake in the driver")

    monkeypatch.setattr(Dashboard, "ask", fail)
    wait_until(lambda: fault_of(arm) is FaultKind.ROBOT)


def test_an_emergency_stop_while_a_fault_is_being_cleared_stays(
    controller: EmulatedController, arm: DobotArm, monkeypatch: pytest.MonkeyPatch
):
    arm.emergency_stop("Ada said so.")
    wait_until(lambda: controller.physics.is_stopped)
    answer = controller.answer

    def answer_while_somebody_stops(command: str) -> str:
        if command.startswith("ClearError"):
            monkeypatch.setattr(controller, "answer", answer)
            arm.emergency_stop("Ben said no.")
        return answer(command)

    monkeypatch.setattr(controller, "answer", answer_while_somebody_stops)
    with pytest.raises((SafetyError, RobotError)):
        arm.clear_fault(by="Ada")
    wait_until(lambda: controller.physics.is_stopped)
    assert fault_of(arm) is FaultKind.EMERGENCY_STOP
    arm.clear_fault(by="Ada")
    assert fault_of(arm) is None
    assert not controller.physics.is_stopped


def test_answers_are_those_of_the_documented_protocol(controller: EmulatedController):
    assert controller.answer("RobotMode()") == "0,{4},RobotMode();"
    assert controller.answer("Dance(1)") == "-10000,{},Dance(1);"
    dashboard = Dashboard("127.0.0.1", controller.dashboard_port)
    assert dashboard.ask("GetAngle()") == [f"{angle:.6f}" for angle in np.rad2deg(START)]
    with pytest.raises(RobotError, match="refused ServoJ"):
        dashboard.ask("ServoJ(0,0,0,0,0,0)")
    dashboard.close()
    assert dashboard.ask("RobotMode()") == ["4"]
    dashboard.close()


def test_nobody_at_the_address_is_said_so():
    with pytest.raises(RobotError, match="Expected a Dobot controller at"):
        Dashboard("127.0.0.1", 1)
