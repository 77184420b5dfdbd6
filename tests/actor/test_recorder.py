from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actor.intervention import Decision
from actor.recorder import Recorder
from actor.spool import Spool
from serl_launcher.errors import RecordingError, SafetyError
from serl_launcher.events import EpisodeEnded, EpisodeLabelled, EpisodeStarted, StepRecorded, check_fits, decode_vector
from serl_launcher.types import Outcome, Source
from tests.actor.recording import ended_in, events_in, open_spool, steps_in
from tests.actor.tiny_robot import SPEC, TinyRobot


def recorder_on(spool: Spool) -> Recorder:
    return Recorder(log=spool, spec=SPEC, actor_id="actor-0")


def record_steps(recorder: Recorder, *, number: int, num_steps: int) -> TinyRobot:
    robot = TinyRobot()
    observation = robot.reset(seed=number)
    recorder.begin(number, seed=number, prompt=observation.prompt)
    for tick in range(num_steps):
        decision = Decision(
            action=np.full(2, 9.0, np.float32),
            source=Source.HUMAN,
            policy_version=6,
            proposal=np.full(2, 0.25, np.float32),
        )
        transition = robot.step(np.full(2, 0.1 * tick, np.float32))
        recorder.record(observation, decision, transition)
        observation = transition.observation
    return robot


def end(recorder: Recorder, robot: TinyRobot, outcome: Outcome = Outcome.SUCCESS) -> None:
    recorder.end(robot.step(np.zeros(2, np.float32)).observation, outcome, "human")


def test_an_episode_is_a_start_its_steps_and_an_end(spool: Spool):
    recorder = recorder_on(spool)
    end(recorder, record_steps(recorder, number=0, num_steps=2))
    assert [type(event) for event in events_in(spool)] == [EpisodeStarted, StepRecorded, StepRecorded, EpisodeEnded]


def test_every_event_fits_the_robot(spool: Spool):
    recorder = recorder_on(spool)
    end(recorder, record_steps(recorder, number=0, num_steps=2))
    for event in events_in(spool):
        check_fits(event, SPEC)


def test_the_executed_action_is_recorded_and_the_overridden_proposal_beside_it(spool: Spool):
    record_steps(recorder_on(spool), number=0, num_steps=2)
    step = steps_in(spool)[1]
    np.testing.assert_array_equal(decode_vector(step.action, 2, "action"), np.full(2, 0.1, np.float32))
    np.testing.assert_array_equal(decode_vector(step.proposal, 2, "proposal"), np.full(2, 0.25, np.float32))
    assert (step.source, step.policy_version) == (Source.HUMAN, 6)


def test_the_id_of_an_episode_names_actor_session_and_number(spool: Spool):
    recorder = recorder_on(spool)
    assert recorder.begin(12, seed=5, prompt="go") == f"actor-0-{spool.epoch}-12"


def test_an_episode_without_steps_leaves_no_trace(spool: Spool):
    recorder = recorder_on(spool)
    end(recorder, record_steps(recorder, number=0, num_steps=0))
    assert events_in(spool) == []


def test_ending_twice_records_one_end(spool: Spool):
    recorder = recorder_on(spool)
    robot = record_steps(recorder, number=0, num_steps=1)
    end(recorder, robot)
    end(recorder, robot)
    assert len(ended_in(spool)) == 1


def test_a_step_without_an_episode_is_our_own_mistake(spool: Spool):
    recorder = recorder_on(spool)
    robot = record_steps(recorder, number=0, num_steps=1)
    end(recorder, robot)
    with pytest.raises(RuntimeError, match="begin"):
        recorder.record(
            robot.reset(seed=0),
            Decision(action=np.zeros(2, np.float32), source=Source.POLICY, policy_version=0),
            robot.step(np.zeros(2, np.float32)),
        )


def test_an_action_that_is_not_finite_opens_no_episode(spool: Spool):
    recorder, robot = recorder_on(spool), TinyRobot()
    observation = robot.reset(seed=0)
    recorder.begin(0, seed=0, prompt=observation.prompt)
    with pytest.raises(RecordingError, match="finite"):
        recorder.record(
            observation,
            Decision(action=np.zeros(2, np.float32), source=Source.POLICY, policy_version=0),
            robot.step(np.full(2, np.nan, np.float32)),
        )
    assert spool.open_episodes() == []


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), 1e300])
def test_a_reward_that_is_not_finite_stops_the_robot_and_keeps_what_was_recorded(spool: Spool, reward: float):
    recorder = recorder_on(spool)
    robot = record_steps(recorder, number=0, num_steps=2)
    transition = replace(robot.step(np.zeros(2, np.float32)), reward=reward)
    decision = Decision(action=np.zeros(2, np.float32), source=Source.POLICY, policy_version=0)
    with pytest.raises(SafetyError, match=r"step 2 of episode.*finite reward"):
        recorder.record(transition.observation, decision, transition)
    end(recorder, robot, Outcome.ABORTED)
    assert [step.step for step in steps_in(spool)] == [0, 1]
    assert [(ended.num_steps, ended.outcome) for ended in ended_in(spool)] == [(2, Outcome.ABORTED)]


def test_a_picture_of_another_size_never_enters_the_spool(spool: Spool):
    recorder = recorder_on(spool)
    robot = record_steps(recorder, number=0, num_steps=1)
    transition = robot.step(np.zeros(2, np.float32))
    wrong = {name: image[1:] for name, image in transition.observation.images.items()}
    decision = Decision(action=np.zeros(2, np.float32), source=Source.POLICY, policy_version=0)
    with pytest.raises(RecordingError, match="must deliver"):
        recorder.record(replace(transition.observation, images=wrong), decision, transition)
    assert len(steps_in(spool)) == 1


def test_an_episode_whose_final_observation_cannot_be_recorded_is_aborted(spool: Spool):
    recorder = recorder_on(spool)
    robot = record_steps(recorder, number=0, num_steps=2)
    broken = replace(robot.step(np.zeros(2, np.float32)).observation, state=np.full(2, np.nan, np.float32))
    with pytest.raises(RecordingError, match="final observation"):
        recorder.end(broken, Outcome.SUCCESS, "human")
    assert [(ended.num_steps, ended.outcome) for ended in ended_in(spool)] == [(2, Outcome.ABORTED)]
    for event in events_in(spool):
        check_fits(event, SPEC)


@pytest.mark.parametrize("prompt", ["x" * 4001, "\ud800"])
def test_a_prompt_that_no_learner_takes_opens_no_episode(spool: Spool, prompt: str):
    recorder, robot = recorder_on(spool), TinyRobot()
    observation = replace(robot.reset(seed=0), prompt=prompt)
    recorder.begin(0, seed=0, prompt=prompt)
    with pytest.raises(RecordingError):
        recorder.record(
            observation,
            Decision(action=np.zeros(2, np.float32), source=Source.POLICY, policy_version=0),
            robot.step(np.zeros(2, np.float32)),
        )
    assert (events_in(spool), spool.open_episodes()) == ([], [])


def test_what_a_killed_predecessor_left_open_is_closed_as_aborted(tmp_path: Path):
    with closing(open_spool(tmp_path)) as killed:
        record_steps(recorder_on(killed), number=3, num_steps=4)
    with closing(open_spool(tmp_path)) as spool:
        recorder = recorder_on(spool)
        assert recorder.close_abandoned() == 1
        [ended] = ended_in(spool)
        assert (ended.num_steps, ended.outcome) == (4, Outcome.ABORTED)
        check_fits(ended, SPEC)
        assert recorder.close_abandoned() == 0


def test_a_late_label_is_an_event_of_its_own(spool: Spool):
    recorder_on(spool).label("actor-0-1-0", Outcome.FAILURE, "human")
    [label] = events_in(spool)
    assert isinstance(label, EpisodeLabelled)
    assert (label.episode_id, label.outcome) == ("actor-0-1-0", Outcome.FAILURE)
