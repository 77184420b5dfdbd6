import time

import pytest

from serl_launcher.errors import PolicyError, ProtocolError
from serl_launcher.transport.messages import ActReply, Fetch
from serl_launcher.transport.requests import Request, RequestTable


def answered(read):
    table = RequestTable()
    request = Request(
        make_header=lambda request_id, _left_ms: Fetch(request_id, 1, "f", 0, 1), frames=(), read=read,
        deadline_s=time.monotonic() + 5, what="a request for actions",
    )  # fmt: skip
    future = table.add(request)
    [(request_id, _)] = table.unsent()
    table.answer(ActReply(policy_version=1, horizon=1, action_dim=1, request_id=request_id), [])
    return future


def test_an_answer_that_cannot_be_read_ends_its_request_and_not_the_thread_that_reads():
    def read(_answer, frames):
        return frames[3]

    with pytest.raises(ProtocolError, match="a request for actions cannot be read: IndexError") as unreadable:
        answered(read).result(0)
    assert isinstance(unreadable.value.__cause__, IndexError)


def test_our_own_errors_arrive_as_they_are():
    def read(_answer, _frames):
        raise PolicyError("not finite")

    with pytest.raises(PolicyError, match="not finite"):
        answered(read).result(0)
