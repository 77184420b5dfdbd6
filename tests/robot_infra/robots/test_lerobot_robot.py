from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("lerobot")

from lerobot.robots import RobotConfig
from lerobot.teleoperators import TeleoperatorConfig

from robot_infra.envs import build
from robot_infra.robots.lerobot_options import read_options
from robot_infra.robots.lerobot_plugins import _decoded
from robot_infra.robots.lerobot_robot import LeRobotLeader, LeRobotRobot
from robot_infra.safety import FaultKind
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.loader import load
from serl_launcher.errors import ConfigError, RobotError, SafetyError
from tests.robot_infra.robots import fake_lerobot

MODULE = fake_lerobot.__name__


def config(*, robot: dict[str, object] | None = None, **options: object) -> EnvironmentConfig:
    settings = {"type": "fake_arm", "module": MODULE, "port": "/dev/fake"} | (robot or {})
    return EnvironmentConfig(
        name="lerobot", hz=50.0, image_size=[10, 8], image_keys=["front"], max_episode_length=3, prompts=["lift it"],
        max_speed=[500.0], max_acceleration=[10_000.0],
        options={"robot": settings, "wait_for_after_reset_time": 0.0} | options,
    )  # fmt: skip


def opened(made: EnvironmentConfig) -> LeRobotRobot:
    robot = build(made)
    assert isinstance(robot, LeRobotRobot)
    return robot


def test_the_spec_comes_from_the_features():
    robot = opened(config(bounds={"shoulder.pos": [-45, 45]}))
    assert robot.spec.state_names == robot.spec.action_names == ("shoulder.pos", "gripper.pos")
    assert (robot.spec.action_low, robot.spec.action_high) == ((-45.0, 0.0), (45.0, 100.0))
    assert robot.spec.camera("front").shape == (8, 10, 3)
    robot.close()


def test_an_episode_goes_to_the_reset_pose_in_time_and_then_follows_its_actions():
    robot = opened(config(reset_pose={"shoulder.pos": 40.0}))
    observation = robot.reset(seed=0)
    np.testing.assert_allclose(observation.state, [40.0, 50.0], atol=1e-4)
    assert observation.images["front"].shape == (8, 10, 3)
    steps = [robot.step(np.array([99.0, 50.0], np.float32)) for _ in range(3)]
    assert [step.truncated for step in steps] == [False, False, True]
    # 500 per second and 10 000 per second squared at 50 Hz: 4 and 8 of the way to 10 a tick.
    np.testing.assert_allclose(steps[-1].executed_action, [62.0, 50.0], atol=1e-3)
    assert robot.render().shape == (8, 10, 3)
    robot.close()
    robot.close()


def test_a_robot_that_does_not_answer_is_a_latched_fault():
    robot = opened(config(robot={"fails_after": 1}))
    robot.reset(seed=0)
    robot.step(np.array([10.0, 50.0], np.float32))
    with pytest.raises(SafetyError, match="the bus is silent"):
        robot.step(np.array([10.0, 50.0], np.float32))
    with pytest.raises(SafetyError):
        robot.step(np.array([10.0, 50.0], np.float32))
    robot.close()


def moving(made: EnvironmentConfig) -> tuple[LeRobotRobot, fake_lerobot.FakeArm]:
    """Returns a robot in motion, and the arm behind it."""
    robot = opened(made)
    robot.reset(seed=0)
    for _ in range(3):
        robot.step(np.array([90.0, 50.0], np.float32))
    assert robot.gate.is_moving
    return robot, robot._robot


def wave(robot: LeRobotRobot, *, num_ticks: int, gripper: float = 50.0) -> None:
    for tick in range(num_ticks):
        robot.step(np.array([(90.0, -90.0)[tick // 20 % 2], gripper], np.float32))


def assert_braked(robot: LeRobotRobot, arm: fake_lerobot.FakeArm) -> None:
    """Checks that it came to rest within its limits, and moves no further."""
    assert not robot.gate.is_moving
    path = np.array([sent["shoulder.pos"] for sent in arm.sent])
    assert np.abs(np.diff(path, 2)).max() <= 10_000 / 50**2 + 1e-3
    with pytest.raises(SafetyError):
        robot.step(np.array([90.0, 50.0], np.float32))
    assert len(arm.sent) == len(path)


@pytest.mark.parametrize(("trouble", "kind"), [("measures_nan", FaultKind.NOT_FINITE), ("is_frozen", FaultKind.CAMERA)])
def test_senses_that_fail_let_the_robot_brake_and_hold(trouble: str, kind: FaultKind):
    robot, arm = moving(config(frozen_after_s=0.3, max_tracking_error=1e3))
    with closing(robot):
        setattr(arm.trouble, trouble, True)
        with pytest.raises(SafetyError):
            wave(robot, num_ticks=200)
        assert robot.gate.fault is not None
        assert robot.gate.fault.kind is kind
        assert_braked(robot, arm)
        if kind is FaultKind.NOT_FINITE:
            with pytest.raises(SafetyError, match="no finite number"):
                robot.clear_fault(by="Ada")
        setattr(arm.trouble, trouble, False)
        robot.clear_fault(by="Ada")
        robot.step(np.array([90.0, 50.0], np.float32))


def test_an_action_that_is_no_number_lets_the_robot_brake():
    robot, arm = moving(config())
    with closing(robot):
        num_sent, before = len(arm.sent), arm.sent[-1]["shoulder.pos"]
        with pytest.raises(SafetyError, match="not finite"):
            robot.step(np.array([np.nan, 50.0], np.float32))
        assert_braked(robot, arm)
        if len(arm.sent) > num_sent:  # Else this machine was so late that the arm stood already.
            assert arm.sent[-1]["shoulder.pos"] > before


def test_slow_senses_make_late_ticks_and_no_fault():
    robot, arm = moving(config())
    with closing(robot):
        num_late = robot.clock.num_late
        arm.trouble.delay_s = 0.05
        for _ in range(3):
            robot.step(np.array([90.0, 50.0], np.float32))
        assert robot.clock.num_late >= num_late + 2
        assert robot.gate.fault is None


def test_an_arm_that_cannot_follow_pushes_no_further_and_can_be_cleared():
    robot, arm = moving(config(max_tracking_error=30.0))
    with closing(robot):
        arm.trouble.is_blocked = True
        with pytest.raises(SafetyError, match="joint 0 is at"):
            wave(robot, num_ticks=50, gripper=0.0)
        assert arm.sent[-1]["shoulder.pos"] == pytest.approx(arm.positions["shoulder.pos"])
        assert arm.sent[-1]["gripper.pos"] < 50.0, "It goes on holding what it holds."
        num_sent = len(arm.sent)
        with pytest.raises(SafetyError):
            robot.step(np.array([90.0, 0.0], np.float32))
        assert len(arm.sent) == num_sent
        arm.trouble.is_blocked = False
        robot.clear_fault(by="Ada")
        robot.step(np.array([90.0, 50.0], np.float32))
        assert robot.gate.fault is None


def test_a_gripper_that_holds_something_is_no_fault():
    with closing(opened(config(max_tracking_error=30.0))) as robot:
        robot.reset(seed=0)
        robot._robot.trouble.is_blocked = True
        for _ in range(10):
            robot.step(np.array([10.0, 0.0], np.float32))
        assert robot.gate.fault is None


def test_an_emergency_stop_lets_no_command_through_until_a_person_clears_it():
    robot, arm = moving(config())
    with closing(robot):
        num_sent = len(arm.sent)
        robot.emergency_stop("Ada said so.")
        with pytest.raises(SafetyError, match="Ada said so"):
            robot.step(np.array([90.0, 50.0], np.float32))
        with pytest.raises(SafetyError, match="Ada said so"):
            robot.reset(seed=1)
        assert max(sent["shoulder.pos"] for sent in arm.sent) < 90.0
        assert len(arm.sent) < num_sent + 10
        robot.clear_fault(by="Ada")
        robot.reset(seed=1)


def test_motors_without_power_are_a_fault_that_can_be_cleared():
    robot, arm = moving(config())
    with closing(robot):
        arm.trouble.is_without_power = True
        with pytest.raises(SafetyError, match="emergency stop pressed"):
            robot.step(np.array([90.0, 50.0], np.float32))
        arm.trouble.is_without_power = False
        robot.clear_fault(by="Ada")
        robot.step(np.array([90.0, 50.0], np.float32))


def test_a_robot_that_answers_nonsense_at_the_start_is_disconnected(monkeypatch: pytest.MonkeyPatch):
    made: list[fake_lerobot.FakeArm] = []
    disconnect = fake_lerobot.FakeArm.disconnect
    monkeypatch.setattr(fake_lerobot.FakeArm, "disconnect", lambda arm: (made.append(arm), disconnect(arm)))
    with pytest.raises(SafetyError, match="no finite number"):
        build(config(robot={"measures_nan": True}))
    assert [arm.is_connected for arm in made] == [False]


@pytest.mark.parametrize("missing", ["max_speed", "max_acceleration"])
def test_a_robot_without_limits_is_refused(missing: str):
    made = config()
    setattr(made, missing, [])
    with pytest.raises(ConfigError, match=f"environment.{missing}"):
        build(made)


def test_the_shipped_so101_has_settings_that_lerobot_knows():
    """By LeRobot's own config classes: a field that it renames or drops fails here, not beside the robot."""
    options = read_options(load(["task=so101"]).environment)
    robot = _decoded(RobotConfig, options.robot, "robot")
    leader = _decoded(TeleoperatorConfig, options.teleoperator, "teleoperator")
    assert (robot.use_degrees, leader.use_degrees) == (False, False), "As the bounds and the reset pose mean it."
    assert {name: camera.type for name, camera in robot.cameras.items()} == {"front": "opencv"}
    motors = {name.removesuffix(".pos") for name in options.reset_pose}
    assert motors == {"shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"}


def test_a_leader_arm_has_the_actions_of_the_robot():
    made = config(teleoperator={"type": "fake_leader", "module": MODULE, "value": 12.0})
    robot = opened(made)
    leader = LeRobotLeader(made, robot.spec)
    np.testing.assert_array_equal(leader.positions(), [12.0, 12.0])
    leader.close()
    robot.close()


def test_a_leader_arm_that_does_not_answer_is_said_so():
    made = config(teleoperator={"type": "fake_leader", "module": MODULE, "is_silent": True})
    with (
        closing(opened(made)) as robot,
        closing(LeRobotLeader(made, robot.spec)) as leader,
        pytest.raises(RobotError, match="the leader's bus is silent"),
    ):
        leader.positions()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config(robot={"type": "no_such_arm"}), r"no_such_arm.*Known types"),
        (config(robot={"module": "no.such.module"}), r"needs no\.such\.module"),
        (config(bounds={"elbow": [0, 1]}), "elbow"),
        (config(colour="red"), "colour"),
    ],
)
def test_settings_that_make_no_sense_are_named(made: EnvironmentConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        build(made)


def test_a_port_without_a_robot_is_said_so():
    with pytest.raises(RobotError, match="no such port"):
        build(config(robot={"port": "none"}))
