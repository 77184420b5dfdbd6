import threading
import time
import weakref

import numpy as np
import pytest
import torch  # noqa: F401 - a server that lost its GPU has it loaded.

from learner.server import decoding, inference
from learner.server.inference import InferenceService
from learner.server.lanes import Lanes, decode_lanes
from learner.server.requests import NoInference
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import HiorsError
from serl_launcher.events import encode_observation
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.transport.messages import ActReply, ErrorReply
from serl_launcher.types import Observation, Unfinished

SPEC = RobotSpec(
    name="tester", cameras=(CameraSpec(name="a", height=8, width=8, encoding="raw"),), state_names=("x", "y"),
    action_names=("x", "y"), action_low=(-1.0, -1.0), action_high=(1.0, 1.0), control_hz=10.0,
)  # fmt: skip


class EchoPolicy:
    """Repeats the state over a chunk of three; can be slow, fail, or give NaN for negative states."""

    def __init__(self, *, delay_s=0.0, error=None):
        self.spec = SPEC
        self.batch_sizes = []
        self._delay_s, self._error = delay_s, error

    def act(self, images, state, prompts):
        assert images.shape == (len(prompts), 1, 8, 8, 3)
        self.batch_sizes.append(len(prompts))
        time.sleep(self._delay_s)
        if self._error is not None:
            raise self._error
        return np.repeat(np.where(state < 0, np.nan, state)[:, None], 3, axis=1)


class Inbox:
    """Collects answers and lets a test wait for them."""

    def __init__(self):
        self.answers = {}
        self._arrived = threading.Condition()

    def reply_to(self, key):
        def reply(header, actions):
            with self._arrived:
                assert key not in self.answers
                self.answers[key] = (header, actions)
                self._arrived.notify_all()

        return reply

    def wait_for(self, count):
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.answers) >= count, timeout=10)
        return self.answers


def observe(x, y=0.0):
    image = np.zeros((8, 8, 3), np.uint8)
    return encode_observation(Observation(images={"a": image}, state=np.array([x, y], np.float32), prompt="go"), SPEC)


def submit(service, inbox, key, *xs, deadline_s=5.0):
    service.submit(key, [observe(x) for x in xs], time.monotonic() + deadline_s, inbox.reply_to(key))


@pytest.fixture(name="inbox")
def fixture_inbox():
    return Inbox()


@pytest.fixture(name="service")
def fixture_service():
    service = InferenceService(ServerConfig(max_batch=4, max_wait_ms=50.0))
    yield service
    service.stop()


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


def test_a_failing_policy_is_reported_and_the_next_one_answers(service, inbox):
    service.swap(EchoPolicy(error=RuntimeError("out of memory")), 0)
    service.start()
    submit(service, inbox, "first", 0.1)
    assert "out of memory" in inbox.wait_for(1)["first"][0].message
    service.swap(EchoPolicy(), 1)
    submit(service, inbox, "second", 0.1)
    assert inbox.wait_for(2)["second"][0].policy_version == 1


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


class Moody(EchoPolicy):
    """Fails on batches of more than `most`, as a device that is out of memory does, and on states above 0.9."""

    def __init__(self, *, most=100):
        super().__init__()
        self._most = most

    def act(self, images, state, prompts):
        if len(prompts) > self._most:
            raise MemoryError("no room for this batch")
        if (state > 0.9).any():
            raise RuntimeError("this state cannot be")
        return super().act(images, state, prompts)


def test_one_request_that_the_model_cannot_take_harms_no_other(service, inbox):
    service.swap(Moody(), 0)
    for key, x in enumerate((0.1, 0.95, 0.3, 0.4)):
        submit(service, inbox, key, x)
    service.start()
    answers = inbox.wait_for(4)
    assert [isinstance(answers[key][0], ActReply) for key in range(4)] == [True, False, True, True]
    assert "this state cannot be" in answers[1][0].message
    assert service.figures()["num_refused"] == 1


def test_a_batch_that_does_not_fit_the_memory_shrinks_and_stays_small(service, inbox):
    policy = Moody(most=2)
    service.swap(policy, 0)
    for key in range(4):
        submit(service, inbox, key, 0.1)
    service.start()
    assert all(isinstance(header, ActReply) for header, _ in inbox.wait_for(4).values())
    for key in range(4, 8):
        submit(service, inbox, key, 0.1)
    inbox.wait_for(8)
    assert max(policy.batch_sizes) == 2
    assert service.figures()["num_failed_calls"] == 1


class OnDevice(EchoPolicy):
    """Fails on more than one observation with a large tensor in its frames; notes what is alive when it is retried."""

    def __init__(self):
        super().__init__()
        self.left = None
        self.was_alive = []

    def act(self, images, state, prompts):
        if self.left is not None:
            self.was_alive.append(self.left() is not None)
        if len(prompts) > 1:
            activations = Activations()
            self.left = weakref.ref(activations)
            raise MemoryError("no room for this batch")
        return super().act(images, state, prompts)


class Activations:
    """Stands for the tensors of a call."""


def test_the_memory_of_a_failed_call_is_free_when_it_is_retried(service, inbox):
    policy = OnDevice()
    service.swap(policy, 0)
    for key in range(4):
        submit(service, inbox, key, 0.1)
    service.start()
    assert all(isinstance(header, ActReply) for header, _ in inbox.wait_for(4).values())
    assert policy.was_alive
    assert not any(policy.was_alive)


def test_a_new_version_gets_no_larger_batches_than_the_memory_took(service, inbox):
    service.swap(Moody(most=2), 0)
    for key in range(4):
        submit(service, inbox, key, 0.1)
    service.start()
    inbox.wait_for(4)
    newer = EchoPolicy(delay_s=0.05)
    service.swap(newer, 1)
    for key in range(4, 9):
        submit(service, inbox, key, 0.1)
    inbox.wait_for(9)
    assert max(newer.batch_sizes) == 2


def test_a_request_that_no_version_can_take_says_nothing_of_the_new_one(service, inbox):
    service.swap(Moody(), 1)
    service.start()
    submit(service, inbox, "old", 0.5)
    inbox.wait_for(1)
    service.swap(Moody(), 2)
    submit(service, inbox, "bad", 0.95)
    header, _ = inbox.wait_for(2)["bad"]
    assert "this state cannot be" in header.message
    assert service.policy_version == 2
    submit(service, inbox, "good", 0.5)
    assert inbox.wait_for(3)["good"][0].policy_version == 2


def test_a_gpu_that_is_lost_ends_the_thread_and_every_request_is_answered(service, inbox):
    service.swap(EchoPolicy(error=RuntimeError("CUDA error: an illegal memory access was encountered")), 1)
    for key in range(6):
        submit(service, inbox, key, 0.1)
    service.start()
    assert all(header.kind == "PolicyError" for header, _ in inbox.wait_for(6).values())
    service.stop()
    with pytest.raises(HiorsError, match="illegal memory access"):
        service.check()


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


@pytest.mark.parametrize("bad", [EchoPolicy(error=RuntimeError("broken weights")), None])
def test_a_version_that_fails_at_once_gives_way_to_the_last_good_one(service, inbox, bad):
    service.swap(EchoPolicy(), 1)
    service.start()
    submit(service, inbox, "good", 0.5)
    inbox.wait_for(1)
    service.swap(bad or NanPolicy(), 2)
    submit(service, inbox, "bad", 0.5)
    assert inbox.wait_for(2)["bad"][0].policy_version == 1
    assert service.policy_version == 1
    service.swap(EchoPolicy(), 3)
    submit(service, inbox, "newer", 0.5)
    assert inbox.wait_for(3)["newer"][0].policy_version == 3


class NanPolicy(EchoPolicy):
    """Gives no numbers."""

    def act(self, images, state, prompts):
        return np.full((len(prompts), 3, 2), np.nan)


def test_a_version_that_has_answered_is_kept_through_a_failure(service, inbox):
    service.swap(EchoPolicy(), 1)
    service.start()
    submit(service, inbox, "old", 0.5)
    inbox.wait_for(1)
    service.swap(EchoPolicy(), 2)
    submit(service, inbox, "first", 0.5)
    inbox.wait_for(2)
    submit(service, inbox, "nan", -1.0)
    assert inbox.wait_for(3)["nan"][0].kind == "PolicyError"
    assert service.policy_version == 2


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
