"""Random wishes and faults against the driver and the emulated arms, as fast as they go.

`stepped_cell` checks the limits of both arms after every servo period, whatever happens.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from robot_infra.robots.dobot.robot import DobotXTrainer
from serl_launcher.errors import RobotError, SafetyError
from tests.robot_infra.robots.dobot.stepped_cell import HIGH, LOW, SteppedTime, stepped_robot

FAULT_CHANCE = 0.004
TROUBLES = ("drop_feedback", "garbage_feedback", "nan_feedback", "drop_commands")
HOLD_TICKS = 5
FAR_LOW, FAR_HIGH = np.tile([*1.5 * LOW, -0.5], 2), np.tile([*1.5 * HIGH, 1.5], 2)


@dataclass
class Tally:
    num_ticks: int = 0
    num_faults: dict[str, int] = field(default_factory=dict)
    num_resets: int = 0


def play(robot: DobotXTrainer, stepped: SteppedTime, num_ticks: int, *, seed: int) -> Tally:
    rng, tally = np.random.default_rng(seed), Tally()
    wish = robot.reset(seed=0).state
    while tally.num_ticks < num_ticks:
        if rng.random() < 0.1:
            wish = rng.uniform(FAR_LOW, FAR_HIGH).astype(np.float32)
        action = wish + rng.normal(0, 0.02, 14).astype(np.float32)
        cause = cause_fault(rng, stepped, action) if rng.random() < FAULT_CHANCE else None
        tally.num_ticks += 1
        try:
            robot.step(action)
        except SafetyError:
            check_hold(robot, stepped)
            tally.num_faults[cause or "later"] = tally.num_faults.get(cause or "later", 0) + 1
            wish = recover(robot, stepped, rng, tally)
    return tally


def cause_fault(rng: np.random.Generator, stepped: SteppedTime, action: np.ndarray) -> str:
    """Breaks something; writes into the action where that is the fault."""
    controller = list(stepped.controllers.values())[rng.integers(2)]
    cause = str(rng.choice([*TROUBLES, "stop", "nan_action"]))
    if cause == "stop":
        controller.press_emergency_stop()
    elif cause == "nan_action":
        action[rng.integers(14)] = rng.choice([np.nan, np.inf])
    else:
        setattr(controller.trouble, cause, True)
    return cause


def check_hold(robot: DobotXTrainer, stepped: SteppedTime) -> None:
    """A fault ends in hold: no command is taken, both arms come to rest and stay."""
    for _ in range(HOLD_TICKS):
        with pytest.raises(SafetyError):
            robot.step(np.zeros(14, np.float32))
        stepped.sleep(0.1)
    resting = [each.physics.joints for each in stepped.controllers.values()]
    stepped.sleep(0.2)
    for before, each in zip(resting, stepped.controllers.values(), strict=True):
        np.testing.assert_allclose(each.physics.joints, before, atol=1e-3)


def recover(robot: DobotXTrainer, stepped: SteppedTime, rng: np.random.Generator, tally: Tally) -> np.ndarray:
    """A person removes the cause and clears the fault; goes on from there, or by a reset. Returns where it stands."""
    for controller in stepped.controllers.values():
        controller.release_emergency_stop()
        for trouble in TROUBLES:
            setattr(controller.trouble, trouble, False)
    stepped.sleep(0.2)
    robot.clear_fault(by="Ada")
    if rng.random() < 0.5:
        tally.num_resets += 1
        return robot.reset(seed=tally.num_resets).state
    return np.concatenate([arm.position() for arm in robot.arms.values()])


def test_the_arms_keep_their_limits_under_random_wishes_and_faults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{__name__}.FAULT_CHANCE", 0.05)
    with stepped_robot(monkeypatch) as (robot, stepped):
        tally = play(robot, stepped, 120, seed=0)
    assert sum(tally.num_faults.values()) >= 3


def get_going(robot: DobotXTrainer) -> None:
    wish = robot.reset(seed=0).state.copy()
    wish[[0, 7]] += 1.0
    for _ in range(4):
        robot.step(wish)
    assert robot.gate.is_moving


def step_on(robot: DobotXTrainer, wish: np.ndarray, *, num_ticks: int) -> None:
    for _ in range(num_ticks):
        robot.step(wish)


def test_an_arm_that_cannot_follow_pushes_no_further(monkeypatch: pytest.MonkeyPatch):
    with stepped_robot(monkeypatch) as (robot, stepped):
        get_going(robot)
        blocked, other = (each.physics for each in stepped.controllers.values())
        blocked.is_blocked = True
        wish = np.concatenate([np.append(each.joints, 1.0) for each in (blocked, other)]).astype(np.float32)
        wish[0] += 1.0
        with pytest.raises(SafetyError, match="joint 0 is at"):
            step_on(robot, wish, num_ticks=20)
        stepped.sleep(0.3)
        np.testing.assert_allclose(blocked.target, blocked.joints, atol=1e-3)
        check_hold(robot, stepped)
        np.testing.assert_allclose(blocked.target, blocked.joints, atol=1e-3)
        blocked.is_blocked = False
        robot.clear_fault(by="Ada")
        robot.reset(seed=1)


def test_a_camera_that_fails_lets_the_arms_brake_within_their_limits(monkeypatch: pytest.MonkeyPatch):
    with stepped_robot(monkeypatch) as (robot, stepped):
        get_going(robot)
        before = robot.gate.last_command

        def fail(name: str) -> None:
            raise RobotError("Camera 'cam_high' has shown the same picture for 2.0 s: it is frozen.")

        monkeypatch.setattr(robot, "_picture", fail)
        robot._config.image_keys = ["cam_high"]
        with pytest.raises(SafetyError, match="frozen"):
            robot.step(before)
        assert not robot.gate.is_moving
        assert robot.gate.last_command[0] > before[0] + 0.05, "It came to rest further on."
        check_hold(robot, stepped)


@pytest.mark.parametrize("pause_s", [0.0, 1.0])
def test_a_reset_of_moving_arms_begins_with_braking(monkeypatch: pytest.MonkeyPatch, pause_s: float):
    with stepped_robot(monkeypatch) as (robot, stepped):
        get_going(robot)
        commands: list[np.ndarray] = []
        send = robot._send
        monkeypatch.setattr(robot, "_send", lambda command: (commands.append(command), send(command)))
        before = robot.gate.last_command
        stepped.sleep(pause_s)
        robot.reset(seed=1)
        overshoot = np.stack(commands)[:, 0].max() - before[0]
        assert (overshoot > 0.05) == (pause_s == 0.0), "Arms that stand already are not set in motion again."


def test_a_reset_pose_that_is_not_reached_is_a_fault(monkeypatch: pytest.MonkeyPatch):
    with stepped_robot(monkeypatch) as (robot, stepped):
        robot._options.max_tracking_error = 9.0
        get_going(robot)
        blocked = next(iter(stepped.controllers.values())).physics
        blocked.is_blocked = True
        with pytest.raises(SafetyError, match="reset pose was not reached: left_j0 is"):
            robot.reset(seed=1)
        check_hold(robot, stepped)
        np.testing.assert_allclose(blocked.target, blocked.joints, atol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_arms_keep_their_limits_in_a_hundred_thousand_ticks(monkeypatch: pytest.MonkeyPatch):
    with stepped_robot(monkeypatch) as (robot, stepped):
        tally = play(robot, stepped, 100_000, seed=1)
    assert set(tally.num_faults) >= {*TROUBLES, "stop", "nan_action"}
    assert min(tally.num_faults[each] for each in (*TROUBLES, "stop", "nan_action")) >= 20
    assert tally.num_resets >= 50
