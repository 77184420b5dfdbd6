from dataclasses import replace

import numpy as np
import pytest

from robot_infra.wrappers.build import wrap
from robot_infra.wrappers.crop import Crop
from robot_infra.wrappers.gripper_penalty import GripperPenalty
from robot_infra.wrappers.history import History
from robot_infra.wrappers.segments import Segments
from serl_launcher.errors import ConfigError
from serl_launcher.types import Outcome
from tests.robot_infra.wrappers.pose_robot import PoseRobot


def action(gripper: float) -> np.ndarray:
    return np.array([0.1, 0, 0, gripper], np.float32)


def test_opening_and_closing_cost_and_staying_does_not():
    robot = GripperPenalty(PoseRobot(), grippers=["gripper"], penalty=0.25)
    robot.reset(seed=0)
    steps = [robot.step(action(opening)) for opening in (1.0, 1.0, 0.0, 0.1, 0.9)]
    assert [step.reward for step in steps] == [1.0, 1.0, 0.75, 1.0, 0.75]
    assert [step.cost for step in steps] == [0.0, 0.0, 0.25, 0.0, 0.25]
    robot.reset(seed=1)
    assert robot.step(action(0.0)).reward == 1.0


def test_a_negative_penalty_is_refused():
    with pytest.raises(ConfigError, match="penalty"):
        GripperPenalty(PoseRobot(), grippers=["gripper"], penalty=-1.0)


def test_the_state_holds_the_last_states_oldest_first():
    robot = History(PoseRobot(), num_states=3)
    assert robot.spec.state_names[0] == "x_2_ago"
    assert robot.spec.state_names[20] == "x"
    np.testing.assert_allclose(robot.reset(seed=0).state[[0, 10, 20]], [1.0, 1.0, 1.0])
    robot.step(action(1.0))
    np.testing.assert_allclose(robot.step(action(1.0)).observation.state[[0, 10, 20]], [1.0, 1.1, 1.2], atol=1e-6)


def test_a_history_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="num_states"):
        History(PoseRobot(), num_states=0)


def test_a_part_of_the_picture_is_scaled_to_all_of_it():
    robot = Crop(PoseRobot(), parts={"cam": [2, 1, 1, 1]})
    picture = robot.reset(seed=0).images["cam"]
    assert picture.shape == (8, 8, 3)
    assert (picture == PoseRobot().reset(seed=0).images["cam"][1, 2]).all()
    assert (robot.step(action(1.0)).observation.images["cam"] == picture).all()


@pytest.mark.parametrize("parts", [{"cam": [0, 0, 9, 1]}, {"cam": [0, 0]}, {"eye": [0, 0, 1, 1]}])
def test_a_part_outside_of_the_picture_is_refused(parts: dict[str, list[int]]):
    with pytest.raises(ConfigError, match="crop"):
        Crop(PoseRobot(), parts=parts)


def test_segments_go_on_where_they_were_cut():
    robot = Segments(PoseRobot(), num_steps=2)
    assert robot.reset(seed=0).state[0] == pytest.approx(1.0)
    steps = [robot.step(action(1.0)) for _ in range(2)]
    assert [step.truncated for step in steps] == [False, True]
    assert [step.outcome for step in steps] == [None, Outcome.UNLABELLED]
    np.testing.assert_array_equal(robot.reset(seed=1).state, steps[1].observation.state)
    assert robot.step(action(1.0)).observation.state[0] == pytest.approx(1.3)


def test_the_task_ends_before_its_segment_and_begins_anew(monkeypatch: pytest.MonkeyPatch):
    robot = Segments(PoseRobot(), num_steps=2)
    robot.reset(seed=0)
    plain = PoseRobot.step
    monkeypatch.setattr(PoseRobot, "step", lambda *arguments: replace(plain(*arguments), terminated=True))
    assert robot.step(action(1.0)).outcome is None
    assert robot.reset(seed=1).state[0] == pytest.approx(1.0)
    steps = [robot.step(action(1.0)) for _ in range(2)]
    assert [step.truncated for step in steps] == [False, False]
    assert robot.reset(seed=2).state[0] == pytest.approx(1.0)


def test_segments_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="num_steps"):
        Segments(PoseRobot(), num_steps=0)


def test_wrappers_come_by_name_the_first_innermost():
    robot = wrap(
        PoseRobot(), [{"name": "gripper_penalty", "grippers": ["gripper"]}, {"name": "history", "num_states": 2}]
    )
    assert isinstance(robot, History)
    assert isinstance(robot.env, GripperPenalty)
    assert robot.spec.state_dim == 20
    robot.close()


@pytest.mark.parametrize(
    ("entry", "message"), [({"name": "blur"}, "among"), ({}, "among"), ({"name": "history", "x": 1}, "does not take")]
)
def test_what_is_no_wrapper_is_refused(entry: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        wrap(PoseRobot(), [entry])
