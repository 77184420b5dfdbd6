"""Several simulators in one actor, as a process and against a learner on real sockets."""

from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from actor.batched_actions import BatchedActions
from actor.lanes import check_lanes
from serl_launcher.config.loader import load
from serl_launcher.errors import ConfigError, PolicyError
from serl_launcher.types import Outcome, Source
from tests.actor.free_ports import free_ports
from tests.actor.learner_process import serving
from tests.actor.test_with_learner import arguments, finish, start
from tests.actor.tiny_robot import PromptFollower, Service, TinyRobot


def test_the_episodes_of_all_lanes_reach_the_learner_whole_and_exactly_as_many_as_wanted(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        settings = ("actor.num_episodes=7", "actor.num_lanes=3", "actor.intervention.enabled=false")
        finish(start(arguments(tmp_path, ports, *settings)))
        episodes = learner.episodes()
        num_requests = learner.inference.num_requests
    assert sorted(episode.seed for episode in episodes) == list(range(7))
    assert [(len(episode.steps), episode.outcome) for episode in episodes] == [(12, Outcome.FAILURE)] * 7
    for episode in episodes:
        assert [step.step for step in episode.steps] == list(range(12))
        assert {step.source for step in episode.steps} == {Source.POLICY}
    # Three chunks of four actions an episode; without lanes each would be a request.
    assert num_requests < 7 * 3


def test_episodes_of_lanes_overlap_and_each_has_its_own_person(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        settings = ("actor.num_episodes=4", "actor.num_lanes=2", "actor.mode=collect", "environment.realtime_factor=50",
                    "environment.max_episode_length=60")  # fmt: skip
        finish(start(arguments(tmp_path, ports, *settings)))
        episodes = learner.episodes()
    assert len(episodes) == 4
    assert {episode.outcome for episode in episodes} == {Outcome.SUCCESS}
    spans = [(episode.steps[0].monotonic_s, episode.steps[-1].monotonic_s) for episode in episodes]
    assert any(one[0] < other[0] < one[1] for one in spans for other in spans if one is not other)


def test_lanes_do_not_go_with_a_person_or_a_clock():
    check_lanes(load(["actor.num_lanes=4"]))
    for setting in ("actor.console.enabled=true", "environment.realtime_factor=1", "actor.devices.keyboard=/dev/tty"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            check_lanes(load(["actor.num_lanes=4", setting]))


def questions(service: BatchedActions, count: int) -> list[Future]:
    return [service.act_async([TinyRobot().reset(seed=seed)], timeout_s=1.0) for seed in range(count)]


def test_what_all_lanes_ask_is_one_request_and_everybody_gets_his_own_answer():
    policy = PromptFollower()
    service = Service(lambda number, observations: policy.act(observations))
    with closing(BatchedActions(service, num_lanes=4, max_wait_s=10.0)) as batched:
        answers = [future.result(5.0)[0] for future in questions(batched, 4)]
        assert policy.batch_sizes == [4]
    alone = [PromptFollower().act([TinyRobot().reset(seed=seed)])[0] for seed in range(4)]
    assert [answer.actions.tolist() for answer in answers] == [chunk.actions.tolist() for chunk in alone]


def test_a_lane_does_not_wait_for_the_others_for_long():
    policy = PromptFollower()
    service = Service(lambda number, observations: policy.act(observations))
    with closing(BatchedActions(service, num_lanes=4, max_wait_s=0.01)) as batched:
        [alone] = questions(batched, 1)
        assert alone.result(5.0)[0].policy_version == policy.version


def test_an_error_is_every_lanes_error():
    with closing(BatchedActions(Service(lambda number, seen: PolicyError("none")), num_lanes=2)) as batched:
        for future in questions(batched, 2):
            with pytest.raises(PolicyError, match="none"):
                future.result(5.0)


def test_a_cancelled_question_is_not_asked():
    policy = PromptFollower()
    service = Service(lambda number, observations: policy.act(observations))
    with closing(BatchedActions(service, num_lanes=2, max_wait_s=0.3)) as batched:
        first, second = questions(batched, 1), []
        first[0].cancel()
        second = questions(batched, 1)
        second[0].result(5.0)
    assert policy.batch_sizes == [1]
