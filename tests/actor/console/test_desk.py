"""Who has the robot, by the clock of the test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actor.console.desk import Desk, Mode, axis_of
from actor.console.person import ConsolePerson, jogging
from actor.rewards.bus import RewardBus
from robot_infra import safety
from robot_infra.interfaces import HOLD
from serl_launcher.errors import Refused
from serl_launcher.types import Observation
from tests.robot_infra.devices.test_teleoperation import DELTA, SPEC


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def desk(clock: Clock | None = None, **more) -> Desk:
    return Desk(RewardBus(), deadman_s=0.5, clock=clock or Clock(), **more)


def test_the_first_who_does_anything_has_the_seat():
    shared = desk()
    shared.claim(1, "Ana")
    with pytest.raises(Refused, match="Ana is in control"):
        shared.take_over(2, "Ben")
    shared.release(2)
    assert shared.holder == "Ana"
    shared.release(1)
    shared.take_over(2, "Ben")
    assert (shared.holder, shared.mode) == ("Ben", Mode.DRIVING)


def test_silence_is_a_lost_connection():
    clock = Clock()
    shared = desk(clock)
    shared.take_over(1, "Ana")
    shared.heard(1, {"j0": 0.5})
    clock.now = 0.4
    assert (shared.read().values, shared.mode) == ({axis_of("j0"): 0.5}, Mode.DRIVING)
    clock.now = 1.0
    assert (shared.read().values, shared.mode) == ({}, Mode.HOLDING)
    # What comes late does not move the robot.
    shared.heard(1, {"j0": 0.5})
    assert (shared.read().values, shared.mode) == ({}, Mode.HOLDING)


def test_a_lost_robot_is_held_in_the_next_episode_too_but_a_driver_begins_anew():
    shared = desk()
    shared.take_over(1, "Ana")
    shared.begin_episode()
    assert shared.mode is Mode.WATCHING
    shared.take_over(1, "Ana")
    shared.release(1)
    shared.begin_episode()
    assert shared.mode is Mode.HOLDING
    shared.hand_back(2, "Ben")
    assert shared.mode is Mode.WATCHING


def test_a_demonstrator_keeps_driving_from_episode_to_episode():
    shared = desk(always_drive=True)
    shared.take_over(1, "Ana")
    shared.begin_episode()
    assert shared.mode is Mode.DRIVING


def test_a_clearing_counts_once_and_not_for_a_later_fault():
    shared = desk()
    shared.clear(1, "Ana")
    shared.forget_clearing()
    assert shared.take_clearing() is None
    shared.clear(1, "Ana")
    assert (shared.take_clearing(), shared.take_clearing()) == ("Ana", None)


def seen(*state: float) -> Observation:
    return Observation(images={}, state=np.array(state, np.float32), prompt="")


def test_robots_whose_actions_are_motions_get_the_deflection_and_nothing_when_let_go():
    shared = desk()
    person = ConsolePerson(desk=shared, hand=jogging(shared, DELTA, jog_speed=0.5), spec=DELTA, beside=None)
    assert person.command(seen(0, 0), None) is None
    shared.take_over(1, "Ana")
    shared.heard(1, {"dx": -0.5})
    np.testing.assert_allclose(person.command(seen(0, 0), None), [-0.5, 0.0])
    shared.heard(1, {})
    np.testing.assert_allclose(person.command(seen(0, 0), None), [0.0, 0.0])
    shared.release(1)
    assert person.command(seen(0, 0), None) is HOLD


SAID = st.lists(
    st.tuples(st.sampled_from(["take_over", "hand_back", "release", "silence", "jog", "begin"]), st.floats(-2, 2)),
    min_size=1, max_size=60,
)  # fmt: skip


@given(said=SAID, start=st.floats(-0.9, 0.9))
@settings(max_examples=60, deadline=None)
def test_whatever_is_pressed_when_no_tick_moves_the_robot_more_than_its_limit(
    said: list[tuple[str, float]], start: float
):
    clock = Clock()
    shared = Desk(RewardBus(), deadman_s=0.5, clock=clock)
    person = ConsolePerson(desk=shared, hand=jogging(shared, SPEC, jog_speed=1.0), spec=SPEC, beside=None)
    gate = safety.Gate(safety.limits_of(SPEC, []))
    here = np.array([start, 0.5], np.float32)
    gate.begin(here)
    for word, value in said:
        match word:
            case "take_over":
                shared.take_over(1, "Ana")
            case "hand_back":
                shared.hand_back(1, "Ana")
            case "release":
                shared.release(1)
            case "silence":
                clock.now += 1.0
            case "jog":
                shared.heard(1, {"j0": value, "gripper": -value})
            case "begin":
                person.reset()
        clock.now += 0.1
        wish = person.command(seen(*here), None)
        command = gate.hold() if wish is HOLD else gate.admit(here if wish is None else wish)
        assert command is not None
        assert np.abs(command - here).max() <= 0.4 + 1e-5  # The gripper's 4 per second.
        assert abs(command[0] - here[0]) <= 0.1 + 1e-5  # The joint's 1 per second.
        here = command
