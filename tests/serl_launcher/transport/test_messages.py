import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl_launcher.errors import PolicyError, ProtocolError, Refused, SessionFenced
from serl_launcher.events import MAX_IMAGE_BYTES
from serl_launcher.transport import act_frames, messages
from serl_launcher.transport.messages import (
    ID_IN_USE,
    STORAGE,
    Ack,
    Act,
    ActReply,
    Announcement,
    ErrorReply,
    Fetch,
    FetchReply,
    Goodbye,
    Heartbeat,
    Hello,
    Stats,
    Steps,
    Welcome,
)
from tests.transport_rig import SPEC, encoded

ANNOUNCEMENT = Announcement(7, "ab" * 32, True, False, 1.5)
REQUESTS = [
    Hello("actor-0", 3, SPEC.digest(), SPEC, "spool", 4), Steps(1, 2), Act(1, 50.0, 3),
    Stats({"success": 0.5, "mode": "x"}), Fetch(1, 2, "model", 0, 100), Heartbeat(), Goodbye(),
]  # fmt: skip
REPLIES = [
    Welcome(9, 4, 7, ANNOUNCEMENT), Ack(9), ActReply(7, 8, 14, {"model": 2.0}, 1), FetchReply(1, 0, 100),
    ErrorReply("Refused", "no", 3), Heartbeat(),
]  # fmt: skip


@pytest.mark.parametrize("message", REQUESTS)
def test_requests_survive_the_round_trip(message):
    assert messages.decode_request(messages.encode(message)) == message


@pytest.mark.parametrize("message", REPLIES)
def test_replies_survive_the_round_trip(message):
    assert messages.decode_reply(messages.encode(message)) == message


def test_announcements_and_observations_survive_the_round_trip():
    assert messages.decode_announcement(messages.encode(ANNOUNCEMENT)) == ANNOUNCEMENT
    frames = [*act_frames.encode_observation_frames(encoded(3)), *act_frames.encode_observation_frames(encoded(4))]
    assert act_frames.decode_act(Act(1, 100.0, 2), frames, 2) == ([encoded(3), encoded(4)], [])
    for wrong in (frames[:-1], [*frames, b""], [frames[0], b"x" * (MAX_IMAGE_BYTES + 1), *frames[2:]]):
        with pytest.raises(ProtocolError):
            act_frames.decode_act(Act(1, 100.0, 2), wrong, 2)


def test_a_reply_is_no_request():
    with pytest.raises(ProtocolError, match="a request of an actor"):
        messages.decode_request(messages.encode(Ack(1)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(content):
    for decode in (messages.decode_request, messages.decode_reply, messages.decode_announcement):
        for frame in (content, b"hi\x02" + content):
            try:
                decode(frame)
            except ProtocolError:
                continue


def test_pickles_are_never_loaded():
    with pytest.raises(ProtocolError):
        messages.decode_request(pickle.dumps(print))
    with pytest.raises(ProtocolError):
        messages.decode_request(b"hi\x02" + pickle.dumps(print))


def test_unknown_fields_are_refused():
    with pytest.raises(ProtocolError, match="unknown field"):
        messages.decode_reply(b"hi\x02\x83\xa4type\xa3ack\xa8last_seq\x01\xa5extra\x01")


def test_actions_of_another_size_are_refused():
    reply = ActReply(1, 2, 3)
    np.testing.assert_array_equal(
        act_frames.decode_actions(reply, np.arange(12, dtype="<f4").tobytes(), 2), np.arange(12).reshape(2, 2, 3)
    )
    with pytest.raises(ProtocolError, match="48 bytes"):
        act_frames.decode_actions(reply, b"\0" * 44, 2)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("PolicyError", PolicyError), (ID_IN_USE, SessionFenced), (STORAGE, Refused), ("SomethingNew", Refused)],
)
def test_error_replies_become_exceptions_of_their_kind(kind, error):
    found = messages.error_of(ErrorReply(kind, "why"))
    assert type(found) is error
    assert str(found) == "why"
