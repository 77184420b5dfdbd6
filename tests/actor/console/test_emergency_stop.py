"""STOP at the console reaches the robot itself, whatever the control loop does at that moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actor.policy_client import RemotePolicy
from robot_infra.robots.dobot.emulator.cell import EmulatedCell
from robot_infra.robots.dobot.feedback import RobotMode
from robot_infra.robots.dobot.robot import DobotXTrainer
from serl_launcher.config.environment import EnvironmentConfig
from tests.actor.console.rig import Client, running
from tests.actor.test_clearance import Announced
from tests.actor.tiny_robot import Service, TinyRobot


@pytest.fixture
def cell() -> Iterator[EmulatedCell]:
    emulated = EmulatedCell(image_size=(48, 32), feedback_hz=50.0)
    yield emulated
    emulated.close()


def driver(cell: EmulatedCell, **more: object) -> DobotXTrainer:
    options = cell.options() | {"wait_for_after_done_time": 0.0, "wait_for_after_reset_time": 0.0} | more
    return DobotXTrainer(
        EnvironmentConfig(
            name="dobot_pnp", hz=10.0, image_size=[24, 16], max_episode_length=10_000, options=options,
            prompts=["put the objects in the box"], max_speed=[2.0], max_acceleration=[20.0], max_jerk=[400.0],
        )
    )  # fmt: skip


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "It did not come true in time."
        time.sleep(0.01)


def joints(cell: EmulatedCell) -> np.ndarray:
    return np.concatenate([each.physics.joints for each in cell.controllers])


def assert_stopped_for_good(cell: EmulatedCell, ana: Client) -> None:
    """Both controllers heard it, the arms rest and stay, and the fault stays as well."""
    wait_until(lambda: all(each.physics.is_stopped for each in cell.controllers))
    assert [each.physics.mode for each in cell.controllers] == [RobotMode.ERROR] * 2
    resting = joints(cell)
    time.sleep(0.3)
    np.testing.assert_array_equal(joints(cell), resting)
    assert "pressed STOP" in ana.until(lambda state: state["fault"])["fault"]


def assert_cleared_by_a_person(cell: EmulatedCell, ana: Client) -> None:
    ana.say("clear")
    ana.until(lambda state: not state["fault"] and state["step"] > 1)
    assert not any(each.physics.is_stopped for each in cell.controllers)
    assert all(each.physics.is_enabled for each in cell.controllers)


def test_in_the_middle_of_an_episode(cell: EmulatedCell, tmp_path: Path):
    with closing(driver(cell)) as robot, running(tmp_path, robot=robot) as rig, rig.viewer() as ana:
        ana.say("take_over")
        ana.until(lambda state: state["source"] == "person", jog={"left_j0": 1.0})
        before = joints(cell)
        ana.until(lambda state: np.abs(joints(cell) - before).max() > 0.05, jog={"left_j0": 1.0})
        ana.say("stop")
        assert_stopped_for_good(cell, ana)
        # What the cameras see is shown all the same.
        seen = rig.rollout.env.num_seen
        ana.until(lambda state: rig.rollout.env.num_seen > seen and state["picture_age_s"] < 1 < state["still_s"])
        assert_cleared_by_a_person(cell, ana)
        assert ana.state["last_outcome"] == "aborted"


def test_in_the_middle_of_a_reset(cell: EmulatedCell, tmp_path: Path):
    slow = driver(cell, wait_for_after_reset_time=1.0)
    with closing(slow) as robot, running(tmp_path, robot=robot) as rig, rig.viewer() as ana:
        ana.say("judge", outcome="failure")
        ana.until(lambda state: state["is_resetting"])
        ana.say("stop")
        assert_stopped_for_good(cell, ana)
        assert_cleared_by_a_person(cell, ana)


def test_while_the_learner_pauses_the_robot(cell: EmulatedCell, tmp_path: Path):
    with closing(driver(cell)) as robot, running(tmp_path, robot=robot) as rig, rig.viewer() as ana:
        learner = rig.clearance.learner
        learner.announcement = Announced(paused=True)
        ana.say("judge", outcome="failure")
        ana.until(lambda state: "pause" in state["waits_for"])
        ana.say("stop")
        assert_stopped_for_good(cell, ana)
        ana.say("clear")
        ana.until(lambda state: not state["fault"] and "pause" in state["waits_for"])
        assert all(each.physics.is_enabled for each in cell.controllers)
        learner.announcement = Announced()
        ana.until(lambda state: state["episode"] > 0 and state["step"] > 1)


def test_while_the_policy_is_waited_for(tmp_path: Path):
    told: list[str] = []

    class Stoppable(TinyRobot):
        def emergency_stop(self, reason: str) -> None:
            told.append(reason)

    with running(tmp_path, robot=Stoppable(max_steps=100_000)) as rig, rig.viewer() as ana:
        gate, plan = rig.rollout.gate, rig.rollout.control.plan
        answering = plan.policy
        plan.policy = RemotePolicy(
            Service(lambda number, observations: None), timeout_s=60.0, is_stopping=lambda: gate.fault is not None
        )
        ana.until(lambda state: state["still_s"] > 0.3)
        ana.say("stop")
        ana.until(lambda state: state["fault"] and state["source"] == "held")
        assert ["pressed STOP" in reason for reason in told] == [True]
        plan.policy = answering
        ana.say("clear")
        ana.until(lambda state: not state["fault"] and state["step"] > 1)
