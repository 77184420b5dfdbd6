import logging
import threading
import time

import numpy as np
import pytest

from actor import policy_client
from actor.policy_client import RemotePolicy
from serl_launcher.errors import DeadlineExceeded, PolicyError, Refused, SessionFenced
from serl_launcher.types import ActionChunk, Observation
from tests.actor.tiny_robot import Service, TinyRobot

CHUNK = ActionChunk(actions=np.zeros((4, 2), np.float32), policy_version=3)


@pytest.fixture
def observation() -> Observation:
    return TinyRobot().reset(seed=0)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(policy_client, "RETRY_AFTER_S", 0.01)
    monkeypatch.setattr(policy_client, "STOP_POLL_S", 0.01)


def remote(service: Service, *, stop: threading.Event | None = None, wait_for_policy_s: float = 0.0) -> RemotePolicy:
    is_stopping = (stop or threading.Event()).is_set
    return RemotePolicy(service, timeout_s=1.0, is_stopping=is_stopping, wait_for_policy_s=wait_for_policy_s)


@pytest.mark.parametrize("failure", [DeadlineExceeded("late"), Refused("busy"), PolicyError("not loaded")])
def test_a_request_that_fails_is_asked_again(failure: Exception, observation: Observation):
    service = Service(lambda number, _: failure if number < 3 else [CHUNK])
    assert remote(service).chunk_for(observation) is CHUNK
    assert len(service.requests) == 4


def test_a_learner_that_is_away_is_reported_once_a_minute(observation: Observation, caplog: pytest.LogCaptureFixture):
    service = Service(lambda number, _: DeadlineExceeded("late") if number < 5 else [CHUNK])
    with caplog.at_level(logging.WARNING):
        remote(service).chunk_for(observation)
    assert len(caplog.records) == 1


def test_a_network_that_loses_answers_now_and_then_is_reported_once_a_minute_too(
    observation: Observation, caplog: pytest.LogCaptureFixture
):
    service = Service(lambda number, _: DeadlineExceeded("lost") if number % 3 == 0 else [CHUNK])
    policy = remote(service)
    with caplog.at_level(logging.INFO):
        for tick in range(60):
            policy.ask(observation, tick=tick)
            policy.answers()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert policy.num_failures == 20


def test_an_error_that_asking_again_cannot_mend_is_raised(observation: Observation):
    with pytest.raises(SessionFenced):
        remote(Service(lambda *_: SessionFenced("taken"))).chunk_for(observation)


def test_a_stop_ends_the_wait(observation: Observation):
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    assert remote(Service(lambda *_: None), stop=stop).chunk_for(observation) is None
    timer.join()


def test_without_any_answer_in_the_configured_time_the_actor_gives_up(observation: Observation):
    service = Service(lambda *_: DeadlineExceeded("nobody there"))
    with pytest.raises(DeadlineExceeded, match=r"wait_for_policy_s=0.05 s: nobody there"):
        remote(service, wait_for_policy_s=0.05).chunk_for(observation)


def test_a_learner_that_answered_once_is_waited_for_without_limit(observation: Observation):
    service = Service(lambda number, _: DeadlineExceeded("late") if 0 < number < 20 else [CHUNK])
    policy = remote(service, wait_for_policy_s=0.05)
    policy.chunk_for(observation)
    assert policy.chunk_for(observation) is CHUNK


def test_an_impatient_tick_gets_nothing_and_the_next_takes_up_the_answer(observation: Observation):
    service = Service(lambda *_: None)
    policy = remote(service)
    started_s = time.monotonic()
    assert policy.chunk_for(observation, patience_s=0.02) is None
    assert time.monotonic() - started_s < 0.5
    service.futures[0].set_result([CHUNK])
    assert policy.chunk_for(observation, patience_s=0.02) is CHUNK
    assert len(service.requests) == 1


def test_an_answer_to_an_observation_of_long_ago_is_dropped(observation: Observation):
    service = Service(lambda number, _: None if number == 0 else [CHUNK])
    policy = remote(service)
    policy.chunk_for(observation, patience_s=0.01)
    policy.forget()
    assert policy.chunk_for(observation) is CHUNK
    assert service.futures[0].cancelled()


class Recorded(Service):
    """Notes the deadlines of questions."""

    def __init__(self, answer):
        super().__init__(answer)
        self.timeouts_s: list[float] = []

    def act_async(self, observations, *, timeout_s):
        self.timeouts_s.append(timeout_s)
        return super().act_async(observations, timeout_s=timeout_s)


def test_a_question_waits_no_longer_than_its_answer_is_of_use(observation: Observation):
    service = Recorded(lambda *_: [CHUNK])
    policy = remote(service)
    policy.ask(observation, tick=0, timeout_s=0.4)
    policy.ask(observation, tick=1, timeout_s=8.0)
    policy.ask(observation, tick=2)
    assert service.timeouts_s == [0.4, 1.0, 1.0]


@pytest.mark.parametrize(
    ("failure", "asks_at_once"),
    [(DeadlineExceeded("lost"), True), (Refused("busy"), False), (PolicyError("no"), False)],
)
def test_only_a_refusal_makes_the_robot_wait_before_it_asks_again(
    failure: Exception, asks_at_once: bool, observation: Observation, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(policy_client, "RETRY_AFTER_S", 60.0)
    policy = remote(Service(lambda *_: failure))
    policy.ask(observation, tick=0)
    assert policy.answers() == []
    assert policy.num_failures == 1
    assert policy.ask(observation, tick=1) == asks_at_once
