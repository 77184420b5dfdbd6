"""What an evaluation does on a robot that people watch: faults, stops, verdicts, waiting for the policy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from actor.evaluation import Evaluation
from actor.evaluation_lane import Lane
from actor.recovery import Recovery
from actor.rewards import JudgedEnv, RewardBus, Verdict
from actor.rollout import gate_of
from robot_infra import safety
from robot_infra.interfaces import Transition
from robot_infra.safety import FaultKind
from serl_launcher.config.actor import EvaluationConfig
from serl_launcher.errors import ConfigError, RobotError, SafetyError
from serl_launcher.types import ActionChunk, Observation, Outcome
from tests.actor.test_rollout_of_a_robot import SMOOTH, Clearing, TimedRobot
from tests.actor.tiny_robot import PROMPTS, PromptFollower

S, F, A, U = Outcome.SUCCESS, Outcome.FAILURE, Outcome.ABORTED, Outcome.UNLABELLED


@dataclass
class Slow(PromptFollower):
    """A policy that takes so long to answer; something may happen meanwhile."""

    delay_s: float = 0.05
    meanwhile: Callable[[], None] = lambda: None

    def act(self, observations: list[Observation]) -> list[ActionChunk]:
        time.sleep(self.delay_s)
        self.meanwhile()
        return super().act(observations)


@dataclass
class Watched(TimedRobot):
    """Something may happen in the reset before an episode, or at a step of it."""

    at_reset: dict[int, Callable[[], None]] = field(default_factory=dict)
    at_step: dict[tuple[int, int], Callable[[], None]] = field(default_factory=dict)
    """By the number of the reset and of the step in it."""

    def reset(self, *, seed: int) -> Observation:
        self.at_reset.get(len(self.seeds), _nothing)()
        return super().reset(seed=seed)

    def step(self, action: np.ndarray) -> Transition:
        self.at_step.pop((len(self.seeds) - 1, self.num_steps), _nothing)()
        time.sleep(0.002)
        return super().step(action)


def _nothing() -> None:
    pass


class Rig:
    """An evaluation of one robot whose episodes a person judges, unless the robot judges itself."""

    def __init__(self, directory: Path, *, environment_judges: bool = False, **robot: object) -> None:
        self.bus = RewardBus()
        self.robot = Watched(**{"spec": SMOOTH, "max_steps": 6, **robot})
        self.env = JudgedEnv(self.robot, self.bus, environment_judges=environment_judges)
        self.gate = gate_of(self.env, safety.limits_of(SMOOTH, [], max_jump=[1.5]))
        self.is_stopped = False
        self.num_written = 0
        self.directory = directory

    def press(self, outcome: Outcome = S, *, corrects_last: bool = False) -> Callable[[], None]:
        return lambda: self.bus.post(Verdict(outcome=outcome, by="human", corrects_last=corrects_last))

    def stop(self) -> None:
        self.is_stopped = True

    def evaluation(self, *, policy: PromptFollower | None = None, **settings: object) -> Evaluation:
        config = {"num_episodes": 3, "first_seed": 100, "num_videos": 0, **settings}
        more = {key: config.pop(key) for key in ("recovery", "last_verdict_s", "prompts") if key in config}

        def written() -> None:
            self.num_written += 1

        def is_stopping() -> bool:
            return self.is_stopped

        lane = Lane(env=self.env, gate=self.gate, is_stopping=is_stopping)
        return Evaluation(
            policy=policy or PromptFollower(), lanes=[lane], config=EvaluationConfig(**config), execution_horizon=2,
            video_dir=self.directory, bus=self.bus, is_stopping=is_stopping, on_result=written, **more,
        )  # fmt: skip

    def outcomes(self, evaluation: Evaluation) -> Sequence[Outcome]:
        return [result.outcome for result in evaluation.attempts.in_order()]


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [SafetyError("The arm hit the table."), RobotError("The arm does not answer.")])
def test_a_fault_cuts_the_attempt_off_and_the_evaluation_ends_with_what_was_done(tmp_path: Path, error: Exception):
    rig = Rig(tmp_path, environment_judges=True, max_steps=100, at_step={(1, 3): raising(error)})
    evaluation = rig.evaluation()
    with pytest.raises(type(error)):
        evaluation.run()
    assert rig.outcomes(evaluation) == [S, A]
    assert rig.num_written == 2
    assert not rig.gate.is_moving


@pytest.mark.parametrize("error", [SafetyError("The arm hit the table."), RobotError("The arm does not answer.")])
def test_where_a_person_clears_the_fault_its_start_state_is_played_again(tmp_path: Path, error: Exception):
    rig = Rig(tmp_path, environment_judges=True, max_steps=100, at_step={(1, 3): raising(error)})
    person = Clearing()
    results = rig.evaluation(recovery=Recovery(person=person, poll_s=0.0), num_videos=None).run()
    assert [(result.seed, result.outcome) for result in results] == [(100, S), (101, A), (101, S), (102, S)]
    assert person.num_cleared == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episode_000.mp4", "episode_001.mp4", "episode_001_again_1.mp4", "episode_002.mp4",
    ]  # fmt: skip


def test_a_reset_that_fails_begins_again_once_a_person_cleared_the_fault(tmp_path: Path):
    rig = Rig(tmp_path, environment_judges=True, max_steps=100)
    failures = [SafetyError("The arm hit the table.")]
    rig.robot.at_reset[1] = lambda: raising(failures.pop())() if failures else None
    results = rig.evaluation(recovery=Recovery(person=Clearing(), poll_s=0.0)).run()
    assert [result.outcome for result in results] == [S, S, S]


def test_a_camera_that_is_silent_when_the_film_begins_is_a_fault_too(tmp_path: Path):
    rig = Rig(tmp_path, environment_judges=True, max_steps=100)
    failures = [RobotError("Camera 'cam' is silent.")]
    picture = rig.robot.render()
    rig.robot.render = lambda: raising(failures.pop())() if failures and len(rig.robot.seeds) == 2 else picture
    results = rig.evaluation(recovery=Recovery(person=Clearing(), poll_s=0.0), num_videos=None).run()
    assert [(result.seed, result.outcome) for result in results] == [(100, S), (101, A), (101, S), (102, S)]


def test_a_stop_ends_in_order_with_the_robot_at_rest(tmp_path: Path):
    rig = Rig(tmp_path, environment_judges=True, max_steps=100)
    rig.robot.at_step[1, 3] = rig.stop
    results = rig.evaluation().run()
    assert [result.outcome for result in results] == [S, A]
    assert not rig.gate.is_moving


def test_an_interrupt_leaves_the_robot_at_rest_too(tmp_path: Path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    rig = Rig(tmp_path, environment_judges=True, max_steps=100, at_step={(1, 3): interrupt})
    evaluation = rig.evaluation()
    with pytest.raises(KeyboardInterrupt):
        evaluation.run()
    assert rig.outcomes(evaluation) == [S, A]
    assert not rig.gate.is_moving


def test_an_emergency_stop_while_the_policy_is_waited_for_lets_no_further_command_through(tmp_path: Path):
    rig = Rig(tmp_path, environment_judges=True, max_steps=100)
    policy = Slow(meanwhile=lambda: rig.gate.trip(FaultKind.EMERGENCY_STOP, "Ada pressed STOP."))
    with pytest.raises(SafetyError, match="pressed STOP"):
        rig.evaluation(policy=policy).run()
    assert rig.robot.commands == []


def test_the_robot_brakes_and_holds_while_the_policy_is_waited_for(tmp_path: Path):
    rig = Rig(tmp_path, environment_judges=True, max_steps=1000)
    [result] = rig.evaluation(policy=Slow(delay_s=0.1), num_episodes=1).run()
    assert result.outcome is S
    assert len(rig.robot.commands) > result.num_steps + 10  # Held in between, which counts as nobody's step.
    changes = np.diff(np.stack(rig.robot.commands), axis=0)
    jolts = np.abs(np.diff(changes, axis=0)).max()
    assert jolts <= float(rig.gate.limits.max_acceleration.max()) + 1e-5
    assert result.duration_s > 0.1 * 2


@pytest.mark.parametrize(
    ("at_reset", "at_step", "expected"),
    [
        ({1: "press"}, {}, [S, U, U]),
        ({}, {(1, 2): "press"}, [U, S, U]),
        ({}, {(1, 5): "press"}, [U, S, U]),
        ({}, {(1, 2): "correct"}, [S, U, U]),
    ],
)
def test_a_verdict_labels_the_episode_that_was_just_seen(
    tmp_path: Path, at_reset: dict[int, str], at_step: dict[tuple[int, int], str], expected: list[Outcome]
):
    rig = Rig(tmp_path)
    said = {"press": rig.press(), "correct": rig.press(corrects_last=True)}
    rig.robot.at_reset = {moment: said[what] for moment, what in at_reset.items()}
    rig.robot.at_step = {moment: said[what] for moment, what in at_step.items()}
    assert [result.outcome for result in rig.evaluation().run()] == expected


def test_a_verdict_while_the_first_actions_are_waited_for_is_about_the_episode_before(tmp_path: Path):
    rig = Rig(tmp_path)
    answers: list[int] = []

    def answering() -> None:
        answers.append(1)
        if len(rig.robot.seeds) == 2 and rig.robot.num_steps == 0:
            rig.bus.post(Verdict(outcome=S, by="human"))

    results = rig.evaluation(policy=Slow(meanwhile=answering)).run()
    assert [result.outcome for result in results] == [S, U, U]


def test_the_last_episode_can_be_judged_for_a_while(tmp_path: Path):
    rig = Rig(tmp_path)
    evaluation = rig.evaluation(last_verdict_s=5.0)
    written = evaluation.on_result

    def judge_the_last() -> None:
        written()
        if len(evaluation.attempts.results) == 3 and evaluation.attempts.is_last_unlabelled:
            rig.bus.post(Verdict(outcome=F, by="human"))

    evaluation.on_result = judge_the_last
    began_s = time.monotonic()
    assert [result.outcome for result in evaluation.run()] == [U, U, F]
    assert time.monotonic() - began_s < 4.0


def test_a_late_failure_is_tried_again_and_a_late_success_is_not(tmp_path: Path):
    rig = Rig(tmp_path)
    rig.robot.at_reset = {1: rig.press(F), 2: rig.press(S)}
    results = rig.evaluation(num_attempts=2, num_episodes=2).run()
    assert [(result.episode, result.attempt, result.outcome) for result in results] == [
        (0, 1, F), (0, 2, U), (1, 1, S),
    ]  # fmt: skip


def test_a_chunk_that_starts_elsewhere_is_a_fault_as_for_the_actor(tmp_path: Path):
    class Jumpy(PromptFollower):
        def act(self, observations: list[Observation]) -> list[ActionChunk]:
            return [ActionChunk(actions=np.full((4, 2), 1.9, np.float32), policy_version=1)]

    rig = Rig(tmp_path, environment_judges=True)
    with pytest.raises(SafetyError, match="max_jump"):
        rig.evaluation(policy=Jumpy()).run()
    assert rig.robot.commands == []


def test_wrong_prompts_are_those_of_the_configuration_and_the_robot_is_not_reset_for_them(tmp_path: Path):
    rig = Rig(tmp_path, environment_judges=True)
    results = rig.evaluation(wrong_prompt=True, prompts=PROMPTS).run()
    assert rig.robot.seeds == [100, 101, 102]
    assert [result.told_prompt for result in results] == [PROMPTS[1], PROMPTS[0], PROMPTS[1]]
    with pytest.raises(ConfigError, match="two prompts"):
        rig.evaluation(wrong_prompt=True, prompts=PROMPTS[:1]).run()
