"""What the control loop does with a robot that keeps its own time: it is never left in motion."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actor.recovery import Recovery
from actor.rollout import Rollout, gate_of
from actor.spool import Spool
from robot_infra import safety
from robot_infra.interfaces import Hold, Transition
from serl_launcher.errors import RobotError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome
from tests.actor.recording import ended_in, steps_in
from tests.actor.test_rollout import play, rollout
from tests.actor.tiny_robot import SPEC, Person, PromptFollower, TinyRobot

SMOOTH = msgspec.structs.replace(SPEC, max_speed=(10.0,), max_acceleration=(100.0,), max_jerk=(5000.0,))
"""Full speed, 0.2 per tick, takes several ticks to reach and to lose."""


@dataclass
class TimedRobot(TinyRobot):
    """A robot that keeps its own time, as real ones do; its driver may fail."""

    keeps_time = True
    spec: RobotSpec = SMOOTH
    fails_at: int = -1
    error: Exception = field(default_factory=lambda: RobotError("The arm does not answer."))

    def step(self, action: np.ndarray) -> Transition:
        if len(self.commands) == self.fails_at:
            self.fails_at = -1
            raise self.error
        return super().step(action)

    def last_moves(self) -> list[float]:
        """Returns how far each command led from the one before."""
        return [
            float(np.abs(after - before).max())
            for before, after in zip(self.commands, self.commands[1:], strict=False)
        ]  # fmt: skip


class SilentLeader(Person):
    """A person whose leader arm falls silent at a tick."""

    silent_at: int = 3

    def command(self, observation: Observation, proposal: np.ndarray | None) -> np.ndarray | Hold | None:
        if self.tick == self.silent_at:
            self.silent_at = -1
            raise RobotError("Leader arm 'left' is silent.")
        return super().command(observation, proposal)


@dataclass
class Clearing:
    """A person who clears every fault."""

    num_cleared: int = 0

    def forget_clearing(self) -> None:
        pass

    def take_clearing(self) -> str | None:
        self.num_cleared += 1
        return "Ada"


def smooth(spool: Spool, tmp_path: Path, robot: TimedRobot, **more: Any) -> Rollout:
    playing = rollout(spool, tmp_path, robot=robot, **{"policy": PromptFollower(), **more})
    playing.gate = gate_of(robot, safety.limits_of(SMOOTH, []))
    return playing


def test_a_robot_or_leader_that_falls_silent_waits_for_a_person_like_any_fault(spool: Spool, tmp_path: Path):
    robot, person = TimedRobot(fails_at=12), Clearing()
    playing = smooth(spool, tmp_path, robot, person=SilentLeader(frozenset()))
    playing.recovery = Recovery(person=person, poll_s=0.01)
    episodes = play(playing, num_episodes=2)
    assert [episode.outcome for episode in episodes] == [Outcome.SUCCESS] * 2
    assert [ended.outcome for ended in ended_in(spool)].count(Outcome.ABORTED) == person.num_cleared == 2


def test_without_a_console_a_silent_robot_ends_the_actor_with_its_error(spool: Spool, tmp_path: Path):
    with pytest.raises(RobotError, match="does not answer"):
        play(smooth(spool, tmp_path, TimedRobot(fails_at=3)), num_episodes=1)
    assert [ended.outcome for ended in ended_in(spool)] == [Outcome.ABORTED]


def test_a_leader_that_falls_silent_leaves_the_robot_at_rest(spool: Spool, tmp_path: Path):
    robot = TimedRobot()
    playing = smooth(spool, tmp_path, robot, person=SilentLeader(frozenset()))
    with pytest.raises(RobotError, match="silent"):
        play(playing, num_episodes=1)
    assert max(robot.last_moves()) > 0.05
    assert not playing.gate.is_moving
    assert playing.gate.fault is not None


@pytest.mark.parametrize("how", ["stop", "time", "interrupt"])
def test_a_real_robot_comes_to_rest_however_an_episode_ends_and_that_is_not_recorded(
    spool: Spool, tmp_path: Path, how: str
):
    robot = TimedRobot(max_steps=3 if how == "time" else 100)
    playing = smooth(spool, tmp_path, robot)

    def on_tick() -> None:
        if len(robot.commands) == 3 and how == "stop":
            playing.clearance.request_stop()
        if len(robot.commands) == 3 and how == "interrupt":
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        playing.run(num_episodes=1, after_episode=lambda episode: None, on_tick=on_tick)
    moves = robot.last_moves()
    assert moves[1] > 0.01
    assert len(moves) > 3
    assert moves[-1] < moves[1]
    assert not playing.gate.is_moving
    assert len(steps_in(spool)) == ended_in(spool)[0].num_steps == 3


def test_a_simulator_whose_episode_is_over_is_not_stepped_any_more(spool: Spool, tmp_path: Path):
    robot = TinyRobot(max_steps=3, spec=SMOOTH)
    playing = rollout(spool, tmp_path, policy=PromptFollower(), robot=robot)
    playing.gate = gate_of(robot, safety.limits_of(SMOOTH, []))
    play(playing, num_episodes=1)
    assert len(robot.commands) == len(steps_in(spool)) == 3
