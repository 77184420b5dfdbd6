from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_infra import safety
from robot_infra.devices.axes import Axes
from robot_infra.devices.teleoperation import Follower, Mover, Teleoperator
from robot_infra.interfaces import HOLD
from serl_launcher.errors import ConfigError, RobotError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation

SPEC = RobotSpec(
    name="two", cameras=(), state_names=("j0", "gripper"), action_names=("j0", "gripper"), action_low=(-1.0, 0.0),
    action_high=(1.0, 1.0), control_hz=10.0, max_speed=(1.0, 4.0),
    max_acceleration=(8.0, 40.0), max_jerk=(160.0, 800.0),
)  # fmt: skip
DELTA = RobotSpec(
    name="delta", cameras=(), state_names=("x", "y"), action_names=("dx", "grip"), action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0), control_hz=10.0,
)  # fmt: skip


@dataclass
class Leader:
    where: np.ndarray = field(default_factory=lambda: np.array([0.8, 0.2]))
    is_silent: bool = False

    def positions(self) -> np.ndarray:
        if self.is_silent:
            raise RobotError("The left leader arm has been silent for 0.3 s.")
        return self.where


@dataclass
class Stick:
    values: dict[str, float] = field(default_factory=dict)
    grip: float | None = None
    is_lost: bool = False
    was_open: list[bool] = field(default_factory=list)

    def begin(self, *, is_open: bool) -> None:
        self.grip = None
        self.was_open.append(is_open)

    def read(self) -> Axes:
        return Axes(values=self.values, grip=self.grip, is_lost=self.is_lost)


def seen(*state: float) -> Observation:
    return Observation(images={}, state=np.array(state, np.float32), prompt="")


def test_a_key_takes_over_and_hands_back():
    person = Teleoperator(Follower(Leader(), SPEC), SPEC)
    assert person.command(seen(0, 1), None) is None
    person.on_key("t")
    assert person.command(seen(0, 1), None) is not None
    person.on_key("x")
    assert person.command(seen(0, 1), None) is not None
    person.on_key("t")
    assert person.command(seen(0, 1), None) is None


def test_a_new_episode_begins_without_the_person():
    person = Teleoperator(Follower(Leader(), SPEC), SPEC)
    person.on_key("t")
    person.reset()
    assert person.command(seen(0, 1), None) is None


def test_a_leader_arm_held_elsewhere_is_followed_from_where_the_robot_stands():
    person = Teleoperator(Follower(Leader(), SPEC), SPEC, always_drive=True)
    first = person.command(seen(-0.5, 1.0), None)
    np.testing.assert_allclose(first, [-0.5, 1.0], atol=1e-6)
    for _ in range(60):
        last = person.command(seen(-0.5, 1.0), None)
    np.testing.assert_allclose(last, [0.8, 0.2], atol=1e-3)


def test_knobs_move_on_from_where_the_robot_stands():
    stick = Stick({"x": 0.5})
    person = Teleoperator(Mover(stick, SPEC, {"j0": ["x", 1.0], "gripper": ["grip", 1]}), SPEC, always_drive=True)
    np.testing.assert_allclose(person.command(seen(0.2, 1.0), None), [0.25, 1.0], atol=1e-6)
    stick.grip = 0.0
    np.testing.assert_allclose(person.command(seen(0.2, 1.0), None), [0.30, 0.0], atol=1e-6)


def test_a_takeover_leaves_the_gripper_as_it_is_until_its_button_is_pressed():
    stick = Stick(grip=1.0)
    person = Teleoperator(Mover(stick, SPEC, {"j0": ["x", 1.0], "gripper": ["grip", 1]}), SPEC)
    person.on_key("t")
    for _ in range(3):
        np.testing.assert_allclose(person.command(seen(0.2, 0.1), None), [0.2, 0.1], atol=1e-6)
    stick.grip = 1.0
    np.testing.assert_allclose(person.command(seen(0.2, 0.1), None), [0.2, 1.0], atol=1e-6)
    person.on_key("t")
    person.command(seen(0.2, 0.1), None)
    person.on_key("t")
    for _ in range(3):
        np.testing.assert_allclose(person.command(seen(0.2, 0.9), None), [0.2, 0.9], atol=1e-6)
    assert stick.was_open == [False, True]


def test_a_gripper_with_another_range_is_opened_and_closed_all_the_way():
    spec = msgspec.structs.replace(SPEC, action_low=(-1.0, 20.0), action_high=(1.0, 100.0))
    stick = Stick()
    person = Teleoperator(Mover(stick, spec, {"gripper": ["grip", 1]}), spec, always_drive=True)
    np.testing.assert_allclose(person.command(seen(0.0, 70.0), None), [0.0, 70.0], atol=1e-6)
    for grip, wanted in ((1.0, 100.0), (0.0, 20.0)):
        stick.grip = grip
        np.testing.assert_allclose(person.command(seen(0.0, 70.0), None), [0.0, wanted], atol=1e-6)
    assert stick.was_open == [True]


@pytest.mark.parametrize("always_drive", [True, False])
def test_a_leader_arm_that_falls_silent_holds_the_robot_until_it_is_back(always_drive: bool):
    leader = Leader()
    person = Teleoperator(Follower(leader, SPEC), SPEC, always_drive=always_drive)
    if not always_drive:
        person.on_key("t")
    person.command(seen(-0.5, 1.0), None)
    leader.is_silent = True
    assert [person.command(seen(-0.5, 1.0), None) for _ in range(3)] == [HOLD] * 3
    leader.is_silent = False
    np.testing.assert_allclose(person.command(seen(0.1, 0.9), None), [0.1, 0.9], atol=1e-6)


def test_a_device_that_is_unplugged_while_it_drives_holds_the_robot_until_the_person_hands_back():
    now, stick = [0.0], Stick({"x": 0.5})
    person = Teleoperator(Mover(stick, SPEC, {"j0": ["x", 1.0]}), SPEC, takes_over_by_touch=True, clock=lambda: now[0])
    assert person.command(seen(0, 1), None) is not None
    stick.values, stick.is_lost = {}, True
    for now[0] in (0.1, 0.6, 60.0):
        assert person.command(seen(0, 1), None) is HOLD
    person.on_key("t")
    assert person.command(seen(0, 1), None) is None
    person.on_key("t")
    assert person.command(seen(0, 1), None) is HOLD
    person.reset()
    assert person.command(seen(0, 1), None) is HOLD
    stick.is_lost = False
    assert person.command(seen(0, 1), None) is None


def test_knobs_move_on_from_where_the_robot_stands_also_where_the_state_holds_more():
    remembering = msgspec.structs.replace(SPEC, state_names=("j0_1_ago", "gripper_1_ago", "j0", "gripper"))
    hand = Mover(Stick({"x": 0.5}), remembering, {"j0": ["x", 1.0]})
    person = Teleoperator(hand, remembering, always_drive=True)
    np.testing.assert_allclose(person.command(seen(0.9, 0.9, 0.2, 1.0), None), [0.25, 1.0], atol=1e-6)


def test_where_actions_are_no_positions_the_deflection_is_the_action():
    person = Teleoperator(
        Mover(stick := Stick({"y": -2.0}), DELTA, {"dx": ["y", 0.3], "grip": ["grip", 1.0]}), DELTA, always_drive=True
    )
    np.testing.assert_allclose(person.command(seen(7, 7), None), [-0.6, 0.0], atol=1e-6)
    stick.grip = 1.0
    np.testing.assert_allclose(person.command(seen(7, 7), None), [-0.6, 1.0], atol=1e-6)


def test_touching_the_device_takes_over_and_letting_go_hands_back():
    now, stick = [0.0], Stick({"x": 0.5})
    person = Teleoperator(Mover(stick, SPEC, {"j0": ["x", 1.0]}), SPEC, takes_over_by_touch=True, clock=lambda: now[0])
    assert person.command(seen(0, 1), None) is not None
    stick.values, now[0] = {}, 0.3
    assert person.command(seen(0, 1), None) is not None
    now[0] = 0.6
    assert person.command(seen(0, 1), None) is None


@pytest.mark.parametrize(
    ("axes", "message"),
    [({"j7": ["x", 1]}, "no action 'j7'"), ({"j0": ["x"]}, r"\[axis, scale\]"), ({"j0": [1, 2]}, r"\[axis, scale\]")],
)
def test_axes_that_make_no_sense_are_refused(axes: dict[str, list[object]], message: str):
    with pytest.raises(ConfigError, match=message):
        Mover(Stick(), SPEC, axes)


@settings(max_examples=50, deadline=None)
@given(
    wishes=arrays(np.float32, (15, 2), elements=st.floats(-1, 1, width=32)),
    leader=arrays(np.float32, (15, 2), elements=st.floats(-1, 1, width=32)),
    keys=st.lists(st.booleans(), min_size=15, max_size=15),
)
def test_takeover_and_hand_back_at_any_tick_never_step_further_than_the_limits(
    wishes: np.ndarray, leader: np.ndarray, keys: list[bool]
):
    limits = safety.limits_of(SPEC, [])
    gate, held = safety.Gate(limits), Leader()
    person = Teleoperator(Follower(held, SPEC), SPEC)
    gate.begin(np.array([0.0, 1.0], np.float32))
    commands = [np.array([0.0, 1.0])]
    for tick, is_pressed in enumerate(keys):
        held.where = leader[tick].astype(np.float64)
        if is_pressed:
            person.on_key("t")
        action = person.command(seen(*commands[-1]), wishes[tick])
        commands.append(gate.admit(wishes[tick] if action is None else action))
    changes = np.abs(np.diff(np.stack(commands), axis=0))
    assert (changes <= limits.max_change + 1e-5).all()
    assert (np.abs(np.diff(np.stack(commands), 2, axis=0)) <= limits.max_acceleration + 1e-5).all()
