from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actor.clearance import Clearance
from actor.intervention import ChunkPolicy, Control
from actor.pacer import Pacer
from actor.progress import EpisodeSummary, Progress
from actor.recorder import Recorder
from actor.rollout import Rollout, gate_of
from actor.spool import Spool
from robot_infra import safety
from serl_launcher.errors import SafetyError
from serl_launcher.events import decode_vector
from serl_launcher.images import decode_image
from serl_launcher.types import ActionChunk, Observation, Outcome, Source
from tests.actor.recording import ended_in, events_in, open_spool, started_in, steps_in
from tests.actor.test_clearance import Heard
from tests.actor.tiny_robot import SPEC, Person, PromptFollower, TinyRobot


class NeverAnswers:
    """A policy whose first chunk comes, and nothing after it."""

    def __init__(self) -> None:
        self.num_asked = 0

    def chunk_for(self, observation: Observation, *, patience_s: float = 0.0) -> ActionChunk | None:
        self.num_asked += 1
        first = ActionChunk(actions=np.tile(observation.state, (2, 1)), policy_version=1)
        return first if self.num_asked == 1 else None

    def forget(self) -> None:
        pass


class Broken:
    """A policy that returns no numbers after the first good chunks."""

    def __init__(self, *, num_good: int) -> None:
        self.num_good = num_good

    def chunk_for(self, observation: Observation, *, patience_s: float = 0.0) -> ActionChunk | None:
        self.num_good -= 1
        actions = np.tile(observation.state, (4, 1))
        return ActionChunk(actions=actions if self.num_good >= 0 else np.full_like(actions, np.nan), policy_version=1)

    def forget(self) -> None:
        pass


def rollout(
    spool: Spool,
    directory: Path,
    *,
    policy: ChunkPolicy | None = None,
    person: Person | None = None,
    robot: TinyRobot | None = None,
    max_change: list[float] | None = None,
) -> Rollout:
    robot = robot or TinyRobot()
    return Rollout(
        env=robot,
        control=Control(policy=policy, operator=person, execution_horizon=3),
        gate=gate_of(robot, safety.limits_of(SPEC, max_change or [])),
        recorder=Recorder(log=spool, spec=SPEC, actor_id="actor-0"),
        progress=Progress.load(directory / "progress.json"),
        clearance=Clearance(learner=Heard(), room=spool, poll_s=0.01),
        pacer=Pacer(0.0),
        seed_offset=500,
    )


def play(rollout: Rollout, *, num_episodes: int) -> list[EpisodeSummary]:
    episodes: list[EpisodeSummary] = []
    rollout.run(num_episodes=num_episodes, after_episode=episodes.append, on_tick=lambda: None)
    return episodes


def test_episodes_are_played_until_there_are_enough(spool: Spool, tmp_path: Path):
    episodes = play(rollout(spool, tmp_path, policy=PromptFollower()), num_episodes=3)
    assert [episode.outcome for episode in episodes] == [Outcome.SUCCESS] * 3
    assert [event.seed for event in started_in(spool)] == [500, 501, 502]
    assert len(ended_in(spool)) == 3


def test_each_step_holds_what_was_seen_before_the_action(spool: Spool, tmp_path: Path):
    play(rollout(spool, tmp_path, policy=PromptFollower()), num_episodes=1)
    seen = [int(decode_image(step.observation.images["cam"], (16, 24, 3))[0, 0, 0]) for step in steps_in(spool)]
    assert seen == list(range(len(seen)))
    [ended] = ended_in(spool)
    assert decode_image(ended.final_observation.images["cam"], (16, 24, 3))[0, 0, 0] == len(seen)


def test_only_the_last_step_is_terminal(spool: Spool, tmp_path: Path):
    play(rollout(spool, tmp_path, policy=PromptFollower()), num_episodes=1)
    assert [step.terminated for step in steps_in(spool)][-2:] == [False, True]


def test_a_time_limit_truncates_and_is_a_failure(spool: Spool, tmp_path: Path):
    [episode] = play(rollout(spool, tmp_path, policy=PromptFollower(), robot=TinyRobot(max_steps=2)), num_episodes=1)
    assert episode.outcome is Outcome.FAILURE
    assert [(step.terminated, step.truncated) for step in steps_in(spool)] == [(False, False), (False, True)]


def test_a_person_alone_collects_demonstrations(spool: Spool, tmp_path: Path):
    [episode] = play(rollout(spool, tmp_path, person=Person(frozenset(range(100)))), num_episodes=1)
    assert (episode.outcome, episode.num_takeovers) == (Outcome.SUCCESS, 0)
    assert {step.source for step in steps_in(spool)} == {Source.HUMAN}
    assert {step.policy_version for step in steps_in(spool)} == {-1}


def test_takeovers_are_counted_and_stored_per_step(spool: Spool, tmp_path: Path):
    [episode] = play(
        rollout(spool, tmp_path, policy=PromptFollower(version=9), person=Person(frozenset({1}))), num_episodes=1
    )
    assert (episode.num_takeovers, episode.num_human_steps, episode.policy_version) == (1, 1, 9)
    assert [step.source for step in steps_in(spool)][:3] == [Source.POLICY, Source.HUMAN, Source.POLICY]


def test_a_stop_aborts_the_episode_and_ends_the_rollout(spool: Spool, tmp_path: Path):
    playing = rollout(spool, tmp_path, person=Person(frozenset()), robot=TinyRobot(max_steps=10_000))
    ticks = []

    def on_tick() -> None:
        ticks.append(1)
        if len(ticks) == 5:
            playing.control.operator = Person(frozenset(range(100)))
        if len(ticks) == 7:
            playing.clearance.request_stop()

    playing.run(num_episodes=0, after_episode=lambda episode: None, on_tick=on_tick)
    assert [ended.outcome for ended in ended_in(spool)] == [Outcome.ABORTED]
    assert len(steps_in(spool)) == 2


def test_a_robot_whose_policy_falls_silent_holds_still_and_nothing_of_it_is_recorded(spool: Spool, tmp_path: Path):
    robot = TinyRobot(max_steps=6)
    [episode] = play_one(rollout(spool, tmp_path, policy=NeverAnswers(), robot=robot))
    assert len(steps_in(spool)) == episode.num_steps == 2
    assert all(np.array_equal(command, robot.commands[0]) for command in robot.commands)
    assert episode.outcome is Outcome.ABORTED


def play_one(rollout: Rollout) -> list[EpisodeSummary]:
    return [rollout.play_episode(lambda: None)]


def test_an_action_that_is_no_number_never_reaches_the_robot(spool: Spool, tmp_path: Path):
    robot = TinyRobot()
    with pytest.raises(SafetyError):
        play(rollout(spool, tmp_path, policy=Broken(num_good=0), robot=robot), num_episodes=1)
    assert robot.commands == []


def test_a_fault_in_the_middle_closes_the_episode_as_aborted(spool: Spool, tmp_path: Path):
    playing = rollout(spool, tmp_path, policy=Broken(num_good=1))
    with pytest.raises(SafetyError):
        play(playing, num_episodes=1)
    [ended] = ended_in(spool)
    assert (ended.outcome, ended.num_steps) == (Outcome.ABORTED, 3)
    assert spool.open_episodes() == []


def test_a_takeover_never_jumps_further_than_the_limit(spool: Spool, tmp_path: Path):
    robot = TinyRobot()
    person = Person(frozenset({2, 3}))
    play(
        rollout(spool, tmp_path, policy=PromptFollower(), person=person, robot=robot, max_change=[0.05]), num_episodes=1
    )
    actions = np.stack([decode_vector(step.action, 2, "action") for step in steps_in(spool)])
    assert np.abs(np.diff(actions, axis=0)).max() <= 0.05 + 1e-6
    np.testing.assert_array_equal(actions, np.stack(robot.commands))


def test_a_restarted_actor_goes_on_with_the_next_number_and_seed(tmp_path: Path):
    with closing(open_spool(tmp_path)) as first:
        play(rollout(first, tmp_path, policy=PromptFollower()), num_episodes=2)
    with closing(open_spool(tmp_path)) as second:
        play(rollout(second, tmp_path, policy=PromptFollower()), num_episodes=3)
        assert [event.seed for event in started_in(second)] == [500, 501, 502]
        assert len({event.episode_id for event in started_in(second)}) == 3


def test_an_actor_that_has_all_its_episodes_plays_none(spool: Spool, tmp_path: Path):
    play(rollout(spool, tmp_path, policy=PromptFollower()), num_episodes=2)
    before = len(events_in(spool))
    assert play(rollout(spool, tmp_path, policy=PromptFollower()), num_episodes=2) == []
    assert len(events_in(spool)) == before
