import threading
import time

import numpy as np
import pytest

from learner.server import decoding, inference
from learner.server.inference import InferenceService
from learner.server.lanes import Lanes, decode_lanes
from learner.server.requests import NoInference
from serl_launcher.config.training import ServerConfig
from serl_launcher.transport.messages import ActReply, ErrorReply
from serl_launcher.types import Unfinished
from tests.learner.server.inference_rig import EchoPolicy, observe, submit


def test_every_request_gets_its_own_rows(service, inbox):
    service.swap(EchoPolicy(), 7)
    service.start()
    submit(service, inbox, "one", 0.25)
    submit(service, inbox, "two", 0.5, 0.75)
    answers = inbox.wait_for(2)
    header, actions = answers["two"]
    assert isinstance(header, ActReply)
    assert (header.policy_version, header.horizon, header.action_dim) == (7, 3, 2)
    assert {"queue", "model"} <= set(header.timings)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions[:, 0, 0], [0.5, 0.75])
    np.testing.assert_array_equal(answers["one"][1][:, 0, 0], [0.25])


def test_requests_that_wait_together_share_a_call(service, inbox):
    policy = EchoPolicy()
    service.swap(policy, 0)
    for key in range(4):
        submit(service, inbox, key, 0.1 * key)
    service.start()
    inbox.wait_for(4)
    assert policy.batch_sizes == [4]


def test_a_request_that_does_not_fit_waits_for_the_next_call(service, inbox):
    policy = EchoPolicy()
    service.swap(policy, 0)
    submit(service, inbox, "first", 0.1, 0.2, 0.3)
    submit(service, inbox, "second", 0.4, 0.5)
    service.start()
    inbox.wait_for(2)
    assert policy.batch_sizes == [3, 2]


def test_a_request_larger_than_a_batch_is_answered_alone(service, inbox):
    policy = EchoPolicy()
    service.swap(policy, 0)
    submit(service, inbox, "large", *[0.1] * 6)
    service.start()
    assert inbox.wait_for(1)["large"][1].shape == (6, 3, 2)


def test_without_a_policy_the_error_says_so(service, inbox):
    service.start()
    submit(service, inbox, "early", 0.1)
    header, actions = inbox.wait_for(1)["early"]
    assert isinstance(header, ErrorReply)
    assert header.kind == "PolicyError"
    assert "No policy is published yet" in header.message
    assert actions is None


def test_an_expired_request_is_answered_as_such_and_not_computed(service, inbox):
    policy = EchoPolicy()
    service.swap(policy, 0)
    submit(service, inbox, "late", 0.1, deadline_s=-0.1)
    submit(service, inbox, "good", 0.2)
    service.start()
    answers = inbox.wait_for(2)
    assert answers["late"][0].kind == "DeadlineExceeded"
    assert policy.batch_sizes == [1]
    assert service.metrics.num_expired == 1


def test_actions_that_are_not_finite_refuse_only_their_own_request(service, inbox):
    service.swap(EchoPolicy(), 0)
    submit(service, inbox, "bad", -1.0)
    submit(service, inbox, "good", 0.5)
    service.start()
    answers = inbox.wait_for(2)
    assert answers["bad"][0].kind == "PolicyError"
    assert isinstance(answers["good"][0], ActReply)


def test_a_damaged_image_refuses_only_its_own_request(service, inbox):
    service.swap(EchoPolicy(), 0)
    whole = observe(0.1)
    damaged = type(whole)({"a": b"xx"}, whole.state, whole.prompt)
    service.submit("bad", [damaged], time.monotonic() + 5, inbox.reply_to("bad"))
    submit(service, inbox, "good", 0.5)
    service.start()
    answers = inbox.wait_for(2)
    assert answers["bad"][0].kind == "ProtocolError"
    assert isinstance(answers["good"][0], ActReply)


def test_a_swap_never_mixes_versions_within_a_batch(service, inbox):
    slow = EchoPolicy(delay_s=0.3)
    service.swap(slow, 1)
    service.start()
    submit(service, inbox, "during", 0.1)
    while not slow.batch_sizes:
        time.sleep(0.01)
    service.swap(EchoPolicy(), 2)
    submit(service, inbox, "after", 0.1)
    answers = inbox.wait_for(2)
    assert answers["during"][0].policy_version == 1
    assert answers["after"][0].policy_version == 2


def test_what_still_waits_at_the_end_is_refused(inbox):
    service = InferenceService(ServerConfig(max_batch=1, max_wait_ms=0.0))
    service.swap(EchoPolicy(delay_s=0.3), 0)
    for key in range(3):
        submit(service, inbox, key, 0.1)
    service.start()
    time.sleep(0.1)
    service.stop()
    assert len(inbox.answers) == 3


def test_data_collection_refuses_at_once(inbox):
    NoInference().submit("any", [observe(0.1)], time.monotonic() + 5, inbox.reply_to("any"))
    header, _ = inbox.answers["any"]
    assert header.kind == "PolicyError"
    assert "data_collection" in header.message


def test_requests_that_wait_are_decoded_while_the_policy_acts(service, inbox, monkeypatch):
    policy = EchoPolicy(delay_s=0.2)
    service.swap(policy, 0)
    service.start()
    submit(service, inbox, "first", 0.1)
    while not policy.batch_sizes:
        time.sleep(0.01)
    threads = []

    def noting(*arguments):
        threads.append(threading.current_thread().name)
        return decode_lanes(*arguments)

    monkeypatch.setattr(decoding, "decode_lanes", noting)
    monkeypatch.setattr(inference, "decode_lanes", lambda *_: pytest.fail("decoded again"))
    damaged = type(observe(0.1))({"a": b"xx"}, observe(0.1).state, "go")
    submit(service, inbox, "second", 0.2)
    service.submit("damaged", [damaged], time.monotonic() + 5, inbox.reply_to("damaged"))
    answers = inbox.wait_for(3)
    assert answers["second"][1][0, 0, 0] == np.float32(0.2)
    assert answers["damaged"][0].kind == "ProtocolError"
    assert all(name.startswith("decoding") for name in threads)
    assert len(threads) == 2


class Continuing(EchoPolicy):
    """Notes what it is told about absent cameras and unfinished chunks."""

    def act_on(self, lanes):
        self.lanes = lanes
        return self.act(lanes.images, lanes.state, lanes.prompts)


def test_unfinished_actions_and_absent_cameras_reach_a_policy_that_knows_them(service, inbox):
    policy = Continuing()
    service.swap(policy, 0)
    rest = Unfinished(actions=np.ones((2, 2), np.float32), delay_ticks=1)
    service.submit("a", [observe(0.1)], time.monotonic() + 5, inbox.reply_to("a"), [rest])
    lanes = Lanes(
        images=np.zeros((1, 1, 8, 8, 3), np.uint8), state=np.zeros((1, 2), np.float32), prompts=["go"],
        image_valid=np.zeros((1, 1), bool),
    )  # fmt: skip
    service.submit("b", lanes, time.monotonic() + 5, inbox.reply_to("b"))
    service.start()
    inbox.wait_for(2)
    assert policy.lanes.unfinished == (rest, None)
    assert policy.lanes.image_valid.tolist() == [[True], [False]]


class Clock:
    """Stands in for the module `time`: passes only where a policy acts."""

    def __init__(self):
        self.now_s = time.monotonic()

    def monotonic(self):
        return self.now_s


class TakesTime(EchoPolicy):
    """Takes 50 ms of a clock."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def act(self, images, state, prompts):
        self._clock.now_s += 0.05
        return super().act(images, state, prompts)


def test_figures_tell_queue_batch_sizes_durations_and_misses_per_actor(service, inbox, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(inference, "time", clock)
    service.swap(TakesTime(clock), 0)
    for actor, left_s in (("robot-1", 5.0), ("robot-2", 5.0), ("robot-3", 0.02), ("robot-4", -1.0)):
        key = (actor, 1)
        service.submit(key, [observe(0.1)], clock.now_s + left_s, inbox.reply_to(key))
    assert service.figures()["queue_depth"] == 4
    service.start()
    inbox.wait_for(4)
    figures = service.figures()
    assert figures["batch_size_mean"] == 3
    assert figures["model_ms_p50"] == pytest.approx(50)
    assert figures["service_ms_p99"] >= figures["queue_ms_p99"]
    assert dict(service.metrics.deadline_misses) == {"robot-3": 1, "robot-4": 1}
    assert figures["num_deadline_misses"] == 2
