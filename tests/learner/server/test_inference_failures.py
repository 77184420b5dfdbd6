"""What a request, a version or a device that fails does to the others: nothing."""

import weakref

import numpy as np
import pytest
import torch  # noqa: F401 - a server that lost its GPU has it loaded.

from serl_launcher.errors import HiorsError
from serl_launcher.transport.messages import ActReply
from tests.learner.server.inference_rig import EchoPolicy, submit


def test_a_failing_policy_is_reported_and_the_next_one_answers(service, inbox):
    service.swap(EchoPolicy(error=RuntimeError("out of memory")), 0)
    service.start()
    submit(service, inbox, "first", 0.1)
    assert "out of memory" in inbox.wait_for(1)["first"][0].message
    service.swap(EchoPolicy(), 1)
    submit(service, inbox, "second", 0.1)
    assert inbox.wait_for(2)["second"][0].policy_version == 1


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
