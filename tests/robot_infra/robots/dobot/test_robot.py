import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from robot_infra.devices.keyboard import Keyboard
from robot_infra.devices.leader_arm import LeaderArm
from robot_infra.envs import build
from robot_infra.robots.dobot.emulator.cell import EmulatedCell, home_pose
from robot_infra.robots.dobot.options import read_options
from robot_infra.robots.dobot.robot import DobotXTrainer
from robot_infra.safety import FaultKind
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError, RobotError, SafetyError

SPEEDS = {"max_speed": [2.0], "max_acceleration": [20.0], "max_jerk": [400.0]}


@pytest.fixture
def cell() -> Iterator[EmulatedCell]:
    emulated = EmulatedCell(image_size=(48, 32), feedback_hz=50.0)
    yield emulated
    emulated.close()


def config_of(cell: EmulatedCell, **more: object) -> EnvironmentConfig:
    options = cell.options() | {"wait_for_after_done_time": 0.0, "wait_for_after_reset_time": 0.0}
    return EnvironmentConfig(
        name="dobot_pnp", hz=10.0, image_size=[24, 16], max_episode_length=4, options=options | more,
        prompts=["put the objects in the box"], **SPEEDS,
    )  # fmt: skip


@pytest.fixture
def robot(cell: EmulatedCell) -> Iterator[DobotXTrainer]:
    opened = build(config_of(cell))
    assert isinstance(opened, DobotXTrainer)
    yield opened
    opened.close()


def wait_until(condition: Callable[[], object], *, timeout_s: float = 8.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        time.sleep(0.02)


def stand_still(robot: DobotXTrainer, *, num_steps: int) -> None:
    for _ in range(num_steps):
        robot.step(home_pose().astype(np.float32))


def test_the_robot_says_what_it_is(robot: DobotXTrainer):
    assert robot.spec.state_names == robot.spec.action_names
    assert robot.spec.action_names[:8] == (*(f"left_j{i}" for i in range(6)), "left_gripper", "right_j0")
    assert robot.spec.max_speed == (2.0,)
    assert robot.spec.camera("cam_high").shape == (16, 24, 3)


def test_an_episode_begins_at_the_reset_pose_and_ends_by_time(robot: DobotXTrainer):
    observation = robot.reset(seed=0)
    np.testing.assert_allclose(observation.state, home_pose(), atol=0.05)
    assert observation.prompt == "put the objects in the box"
    assert {image.shape for image in observation.images.values()} == {(16, 24, 3)}
    wish = home_pose().astype(np.float32)
    wish[0] += 0.3
    transitions = [robot.step(wish) for _ in range(4)]
    assert [each.truncated for each in transitions] == [False, False, False, True]
    assert transitions[-1].executed_action[0] == pytest.approx(home_pose()[0] + 0.3, abs=0.05)
    assert robot.render().shape == (16, 72, 3)
    np.testing.assert_allclose(robot.reset(seed=1).state, home_pose(), atol=0.05)


def test_four_ticks_take_their_time(robot: DobotXTrainer):
    robot.reset(seed=0)
    began_s = time.monotonic()
    for _ in range(4):
        robot.step(home_pose().astype(np.float32))
    assert time.monotonic() - began_s >= 0.4 - 0.01
    assert robot.clock.num_ticks >= 4


@pytest.mark.parametrize("trouble", ["frozen", "silent"])
def test_a_camera_that_freezes_or_falls_silent_stops_the_robot(cell: EmulatedCell, trouble: str):
    options = cell.options()["cameras"]
    cameras = {name: camera | {"max_age_s": 2.0, "frozen_after_s": 2.0} for name, camera in options.items()}
    with closing(DobotXTrainer(config_of(cell, cameras=cameras))) as robot:
        robot.reset(seed=0)
        getattr(cell.cameras, trouble).add("cam_high")
        with pytest.raises(SafetyError, match="cam_high"):
            stand_still(robot, num_steps=200)
        assert robot.gate.fault is not None
        assert robot.gate.fault.kind is FaultKind.CAMERA
        with pytest.raises(SafetyError):
            robot.step(home_pose().astype(np.float32))


def test_the_emergency_stop_of_one_arm_stops_both_until_a_person_clears_it(cell: EmulatedCell, robot: DobotXTrainer):
    robot.reset(seed=0)
    cell.controllers[1].press_emergency_stop()
    with pytest.raises(SafetyError):
        stand_still(robot, num_steps=100)
    with pytest.raises(SafetyError):
        robot.step(home_pose().astype(np.float32))
    cell.controllers[1].release_emergency_stop()
    robot.clear_fault(by="Ada")
    robot.reset(seed=1)


def test_an_emergency_stop_from_another_thread_stops_both_controllers_until_a_person_takes_it_back(
    cell: EmulatedCell, robot: DobotXTrainer
):
    robot.reset(seed=0)
    robot.emergency_stop("Ada said so.")
    with pytest.raises(SafetyError, match="Ada said so"):
        robot.step(home_pose().astype(np.float32))
    wait_until(lambda: all(each.physics.is_stopped for each in cell.controllers))
    assert robot.look().state.shape == (14,)
    with pytest.raises(SafetyError):
        robot.reset(seed=1)
    robot.clear_fault(by="Ada")
    assert [each.physics.is_stopped for each in cell.controllers] == [False, False]
    assert [each.physics.is_enabled for each in cell.controllers] == [True, True]
    robot.reset(seed=1)


def test_an_emergency_stop_reaches_a_controller_that_did_not_answer_at_first(cell: EmulatedCell):
    options = cell.options()
    options["left"] |= {"timeout_s": 0.2}
    with closing(DobotXTrainer(config_of(cell, left=options["left"]))) as robot:
        cell.controllers[0].trouble.drop_commands = True
        began_s = time.monotonic()
        robot.emergency_stop("Ada said so.")
        assert time.monotonic() - began_s < 0.15
        wait_until(lambda: cell.controllers[1].physics.is_stopped)
        assert not cell.controllers[0].physics.is_stopped
        cell.controllers[0].trouble.drop_commands = False
        wait_until(lambda: cell.controllers[0].physics.is_stopped)


def test_an_emergency_stop_that_somebody_pressed_beside_the_robot_is_not_taken_back_from_afar(
    cell: EmulatedCell, robot: DobotXTrainer
):
    robot.reset(seed=0)
    cell.controllers[0].press_emergency_stop()
    with pytest.raises(SafetyError):
        stand_still(robot, num_steps=100)
    with pytest.raises(RobotError, match="ClearError"):
        robot.clear_fault(by="Ada")
    assert cell.controllers[0].physics.is_stopped


def test_an_action_that_is_no_number_moves_nothing(robot: DobotXTrainer):
    robot.reset(seed=0)
    with pytest.raises(SafetyError):
        robot.step(np.full(14, np.nan, np.float32))


def test_a_misspelt_option_is_named(cell: EmulatedCell):
    with pytest.raises(ConfigError, match="reset_poze"):
        build(config_of(cell, reset_poze=[0.0]))


def test_a_reset_pose_needs_fourteen_values(cell: EmulatedCell):
    with pytest.raises(ConfigError, match="reset_pose of dobot_pnp needs 14 values, got 1"):
        build(config_of(cell, reset_pose=[0.0]))


@pytest.mark.parametrize("missing", ["max_speed", "max_acceleration"])
def test_a_robot_without_limits_is_refused(cell: EmulatedCell, missing: str):
    config = config_of(cell)
    setattr(config, missing, [])
    with pytest.raises(ConfigError, match=f"environment.{missing}"):
        build(config)


def test_an_emergency_stop_while_a_fault_is_being_cleared_stays(cell: EmulatedCell, robot: DobotXTrainer):
    robot.emergency_stop("Ada said so.")
    wait_until(lambda: all(each.physics.is_stopped for each in cell.controllers))
    answer = cell.controllers[1].answer

    def answer_while_somebody_stops(command: str) -> str:
        if command.startswith("EnableRobot"):
            robot.emergency_stop("Ben said no.")
        return answer(command)

    cell.controllers[1].answer = answer_while_somebody_stops
    with pytest.raises((SafetyError, RobotError)):
        robot.clear_fault(by="Ada")
    cell.controllers[1].answer = answer
    wait_until(lambda: all(each.physics.is_stopped for each in cell.controllers))
    with pytest.raises(SafetyError):
        robot.step(home_pose().astype(np.float32))
    robot.clear_fault(by="Ada")
    robot.reset(seed=0)


def test_a_camera_without_settings_is_named(cell: EmulatedCell):
    with pytest.raises(ConfigError, match="cam_left_wrist"):
        build(config_of(cell, cameras={"cam_high": cell.options()["cameras"]["cam_high"]}))


def test_a_random_reset_moves_the_first_joints_only(cell: EmulatedCell):
    with closing(DobotXTrainer(config_of(cell, random_reset=True, random_joint_range=0.2))) as robot:
        moved = robot.reset(seed=3).state - home_pose()
    assert np.abs(moved[[0, 1, 2, 7, 8, 9]]).max() > 0.05
    np.testing.assert_allclose(moved[[3, 4, 5, 10, 11, 12]], 0.0, atol=0.05)


def test_the_person_demonstrates_with_the_leader_arms_and_judges_by_key():
    """The cell alone, with the follower's part played here: joints go where the leaders are held."""
    with closing(EmulatedCell(image_size=(16, 16), demonstrates=True, feedback_hz=50.0)) as cell:
        leaders = read_options(cell.options()).leaders
        keys: list[str] = []
        with (
            closing(Keyboard(cell.terminal.path)) as keyboard,
            closing(LeaderArm("left", leaders["left"])) as left,
            closing(LeaderArm("right", leaders["right"])) as right,
        ):
            keyboard.listen(keys.append)
            deadline_s = time.monotonic() + 60.0
            while not keys and time.monotonic() < deadline_s:
                for arm, leader in enumerate((left, right)):
                    positions = leader.positions()
                    cell.controllers[arm].physics.joints = positions[:6]
                    cell.grippers[arm].goal = positions[6]
                time.sleep(0.05)
        assert keys[0] in ("s", "f")
