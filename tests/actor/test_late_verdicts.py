"""A verdict labels the episode that the person just saw, whenever it is pressed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from actor.clearance import Clearance
from actor.intervention import Control
from actor.pacer import Pacer
from actor.progress import Progress
from actor.recorder import Recorder
from actor.rewards import JudgedEnv, RewardBus, Verdict
from actor.rewards.late_labels import LateLabels
from actor.rollout import Rollout, gate_of
from actor.spool import Spool
from robot_infra import safety
from robot_infra.interfaces import Transition
from serl_launcher.errors import SafetyError
from serl_launcher.events import EpisodeEnded, EpisodeLabelled
from serl_launcher.types import ActionChunk, Observation, Outcome
from tests.actor.recording import events_in, started_in
from tests.actor.test_clearance import Heard
from tests.actor.tiny_robot import SPEC, Person, TinyRobot, towards

NUM_STEPS = 3
"""Ticks of an episode that nobody judges."""


@dataclass
class Pressed:
    """Runs `press` at one moment of one episode."""

    moment: str
    press: Callable[[], object]
    episode: int = 1
    now: int = -1

    def at(self, moment: str) -> None:
        if (moment, self.now) == (self.moment, self.episode):
            self.press()


@dataclass
class WatchedRobot(TinyRobot):
    """Presses during resets and steps; may fail at a step."""

    pressed: Pressed | None = None
    fails_at: int = -1

    def reset(self, *, seed: int) -> Observation:
        assert self.pressed is not None
        self.pressed.now += 1
        self.pressed.at("in the reset")
        return super().reset(seed=seed)

    def step(self, action: np.ndarray) -> Transition:
        assert self.pressed is not None
        self.pressed.at(("in the first step", "in a step", "in the last step")[self.num_steps])
        if (self.pressed.now, self.num_steps) == (1, self.fails_at):
            raise SafetyError("The arm hit the table.")
        return super().step(action)


@dataclass
class Still:
    """A policy that stays; it presses while the first chunk of an episode is waited for."""

    pressed: Pressed
    asked_in: set[int] = field(default_factory=set)

    def chunk_for(self, observation: Observation, *, patience_s: float = 0.0) -> ActionChunk | None:
        if self.pressed.now not in self.asked_in:
            self.asked_in.add(self.pressed.now)
            self.pressed.at("before the first step")
        return ActionChunk(actions=towards(observation, float(observation.state[0]), horizon=4), policy_version=1)

    def forget(self) -> None:
        pass


class Rig:
    """A rollout with judges as an actor has it; a person presses once."""

    def __init__(self, spool: Spool, directory: Path, moment: str, *verdicts: Verdict, **robot: int) -> None:
        self.bus, self.spool = RewardBus(), spool
        self.pressed = Pressed(moment, lambda: [self.bus.post(verdict) for verdict in verdicts])
        inner = WatchedRobot(max_steps=NUM_STEPS, pressed=self.pressed, **robot)
        env = JudgedEnv(inner, self.bus, environment_judges=False)
        self.rollout = Rollout(
            env=env,
            control=Control(policy=Still(self.pressed), operator=None, execution_horizon=3),
            gate=gate_of(env, safety.limits_of(SPEC, [])),
            recorder=Recorder(log=spool, spec=SPEC, actor_id="a"),
            progress=Progress.load(directory / "progress.json"),
            clearance=Clearance(learner=Heard(), room=spool, poll_s=0.01),
            pacer=Pacer(0.0),
            bus=self.bus,
        )
        self.labels = LateLabels(bus=self.bus, recorder=self.rollout.recorder, progress=self.rollout.progress)

    def play(self, num_episodes: int = 3) -> list[Outcome]:
        """Plays so many episodes; returns `labelled`."""

        def on_tick() -> None:
            is_last = self.rollout.recorder.num_steps == NUM_STEPS
            self.pressed.at("after the last step" if is_last else "after a step")
            self.labels.apply()

        try:
            self.rollout.run(num_episodes=num_episodes, after_episode=lambda episode: None, on_tick=on_tick)
        finally:
            self.labels.apply()
        return self.labelled()

    def labelled(self) -> list[Outcome]:
        """Returns the newest label of every recorded episode, as the learner will have it."""
        outcomes: dict[str, Outcome] = {}
        for event in events_in(self.spool):
            if isinstance(event, EpisodeEnded | EpisodeLabelled):
                outcomes[event.episode_id] = event.outcome
        return [outcomes[event.episode_id] for event in started_in(self.spool)]


def said(*, corrects_last: bool = False, by: str = "human") -> Verdict:
    return Verdict(outcome=Outcome.SUCCESS, by=by, corrects_last=corrects_last)


U, S, A = Outcome.UNLABELLED, Outcome.SUCCESS, Outcome.ABORTED


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("in the reset", [S, U, U]),
        ("before the first step", [S, U, U]),
        ("in a step", [U, S, U]),
        ("in the last step", [U, S, U]),
        ("after the last step", [U, S, U]),
    ],
)
def test_a_verdict_labels_the_episode_that_was_just_seen(
    spool: Spool, tmp_path: Path, moment: str, expected: list[Outcome]
):
    assert Rig(spool, tmp_path, moment, said()).play() == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [("in the reset", [S, U, U]), ("in a step", [S, U, U]), ("after the last step", [U, S, U])],
)
def test_a_correction_is_about_the_last_episode_that_was_over(
    spool: Spool, tmp_path: Path, moment: str, expected: list[Outcome]
):
    assert Rig(spool, tmp_path, moment, said(corrects_last=True)).play() == expected


def test_the_last_tick_before_the_actor_ends_can_be_judged(spool: Spool, tmp_path: Path):
    assert Rig(spool, tmp_path, "after the last step", said()).play(num_episodes=2) == [U, S]


def test_a_verdict_and_a_stop_in_the_same_moment_both_count(spool: Spool, tmp_path: Path):
    rig = Rig(spool, tmp_path, "after a step")

    def press() -> None:
        rig.bus.post(said())
        rig.rollout.clearance.request_stop()

    rig.pressed.press = press
    assert rig.play() == [U, S]


def test_a_fault_does_not_take_the_verdict_away_from_the_episode_that_it_cut_off(spool: Spool, tmp_path: Path):
    rig = Rig(spool, tmp_path, "in a step", said(), fails_at=1)
    with pytest.raises(SafetyError):
        rig.play()
    assert rig.labelled() == [U, S]


def test_a_classifier_has_no_say_once_the_episode_is_over(spool: Spool, tmp_path: Path):
    assert Rig(spool, tmp_path, "after the last step", said(by="classifier")).play() == [U, U, U]


def test_a_person_who_judges_before_anything_of_the_next_episode_is_recorded_means_the_last_one(
    spool: Spool, tmp_path: Path
):
    """A collecting person is not driving yet: the robot holds, nothing is recorded."""
    rig = Rig(spool, tmp_path, "in a step", said())
    rig.rollout.control = Control(policy=None, operator=FirstEpisodeDriver(rig.pressed), execution_horizon=3)
    assert rig.play(num_episodes=1) == [U]
    rig.rollout.run(num_episodes=2, after_episode=lambda episode: None, on_tick=rig.labels.apply)
    assert rig.labelled() == [S, U]
    assert rig.rollout.progress.num_finished == 2


class FirstEpisodeDriver(Person):
    """Drives in every episode but the second one."""

    def __init__(self, pressed: Pressed) -> None:
        super().__init__(frozenset())
        self.pressed = pressed

    def reset(self) -> None:
        super().reset()
        self.ticks = frozenset() if self.pressed.now == 1 else frozenset(range(100))
