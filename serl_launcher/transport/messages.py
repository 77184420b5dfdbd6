"""What travels between actors and the learner: typed headers, each followed by frames of raw bytes.

    frame 0   b"hi" + protocol version (1 byte) + MessagePack of one of the structs below
    frame 1+  events as `events.encode_event` wrote them (Steps), observations (Act), float32 actions (ActReply),
              a piece of a file (FetchReply)

One actor talks through one DEALER socket to the ROUTER of the learner:

    Hello -> Welcome            who I am, how far you have my events; nothing else is answered before
    Steps -> Ack                committed up to that sequence number
    Act -> ActReply             one chunk per observation
    Fetch -> FetchReply         one piece of one file of a published policy
    Heartbeat -> Heartbeat      alive, in both directions
    Goodbye -> Heartbeat        the session is over, the actor id is free
    Stats                       newest figures of the actor, not answered
    anything -> ErrorReply      understood or not, refused for the reason given

`Announcement` is one frame on the PUB socket.
"""

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from serl_launcher.errors import (
    DeadlineExceeded,
    HiorsError,
    PolicyError,
    ProtocolError,
    Refused,
    SessionFenced,
    SpecMismatch,
)
from serl_launcher.events import Name
from serl_launcher.specs import RobotSpec

Frame = bytes | memoryview
Frames = list[Frame]
"""One message as it came, or is to be sent: the header, then raw bytes."""

PROTOCOL_VERSION = 2
MAX_OBSERVATIONS = 1024
MAX_FETCH_BYTES = 4 * 1024 * 1024

_MAGIC = b"hi"
_PREFIX = _MAGIC + bytes([PROTOCOL_VERSION])

T = TypeVar("T")

Count = Annotated[int, Meta(ge=0, le=2**62)]
Text = Annotated[str, Meta(max_length=4000)]

NO_SESSION = "NoSession"
"""Kind of error: the learner does not know this connection; say hello."""
ID_IN_USE = "IdInUse"
"""Kind of error: another living actor has that id."""
STORAGE = "Storage"
"""Kind of error: the learner cannot write; its disk may be full. Send again later."""


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hello"):
    """Opens a session. `first_seq` is the last sequence number the spool does not hold any more."""

    actor_id: Annotated[str, Meta(min_length=1, max_length=200)]
    epoch: Count
    spec_digest: Annotated[str, Meta(max_length=64)]
    spec: RobotSpec
    spool_id: Annotated[str, Meta(min_length=1, max_length=64)]
    first_seq: Count


class Steps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="steps"):
    """`count` events with sequence numbers from `first_seq` on, one frame each."""

    first_seq: Annotated[int, Meta(ge=1, le=2**62)]
    count: Annotated[int, Meta(ge=1, le=100_000)]


class UnfinishedHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What one lane still executes: so many float32 actions, so many of them before the answer arrives."""

    num_actions: Annotated[int, Meta(ge=0, le=10_000)]
    delay_ticks: Annotated[int, Meta(ge=0, le=10_000)]


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="act", omit_defaults=True):
    """Asks for one chunk per observation, `count` of them (see `act_frames`); late answers are worthless.

    With `unfinished`, one header per observation, one more frame holds all unfinished actions in a row.
    """

    request_id: Count
    deadline_ms: Annotated[float, Meta(ge=0, le=3_600_000)]
    count: Annotated[int, Meta(ge=1, le=MAX_OBSERVATIONS)]
    unfinished: Annotated[tuple[UnfinishedHeader, ...], Meta(max_length=MAX_OBSERVATIONS)] = ()


class Stats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stats"):
    """Newest figures of an actor, for people to look at."""

    values: Annotated[dict[Name, float | int | Text], Meta(max_length=200)]


class Fetch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fetch"):
    """Asks for a piece of a file of a published policy."""

    request_id: Count
    version: Count
    file: Name
    offset: Count
    size: Annotated[int, Meta(ge=1, le=MAX_FETCH_BYTES)]


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="heartbeat"):
    """Nothing to say but alive."""


class Goodbye(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="goodbye"):
    """The actor ends in good order."""


class Announcement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="announcement"):
    """What every actor should know now; repeated at each heartbeat."""

    policy_version: int
    """Newest published policy; -1 where there is none."""
    policy_digest: Annotated[str, Meta(max_length=64)]
    """SHA-256 (hex) of its manifest; empty where there is none."""
    paused: bool
    """Actors should not begin another episode."""
    stop: bool
    """The run is over; actors should finish their episode, deliver and end."""
    time: float
    """Wall clock of the learner."""


class Welcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="welcome"):
    """The session is open; events after `last_seq` are wanted, at most `credits` Steps requests at a time."""

    last_seq: Count
    credits: Annotated[int, Meta(ge=1, le=1000)]
    policy_version: int
    announcement: Announcement


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ack"):
    """All events up to `last_seq` are committed, as durably as the learner is configured."""

    last_seq: Count


class ActReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="act_reply"):
    """Chunks, in one frame of little-endian float32 [count, horizon, action_dim]."""

    policy_version: int
    horizon: Annotated[int, Meta(ge=1, le=10_000)]
    action_dim: Annotated[int, Meta(ge=1, le=10_000)]
    timings: Annotated[dict[Name, float], Meta(max_length=32)] = {}
    """Durations in milliseconds."""
    request_id: Count = 0
    """Filled in by the gateway."""


class FetchReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fetch_reply"):
    """A piece of a file, in one frame, and how many bytes the whole file has."""

    request_id: Count
    offset: Count
    total_bytes: Count


class ErrorReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="error"):
    """Why a request was refused."""

    kind: Name
    """Name of a class in `serl_launcher.errors`, or one of the kinds above; unknown ones mean `Refused`."""
    message: Annotated[str, Meta(max_length=20_000)]
    request_id: Count | None = None
    """The Act or Fetch that it answers; None where it concerns the session."""


Request = Hello | Steps | Act | Stats | Fetch | Heartbeat | Goodbye
Reply = Welcome | Ack | ActReply | FetchReply | ErrorReply | Heartbeat
Message = Request | Reply | Announcement

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Request)
_reply_decoder = msgspec.msgpack.Decoder(Reply)
_announcement_decoder = msgspec.msgpack.Decoder(Announcement)

_ERRORS: Mapping[str, type[HiorsError]] = {
    error.__name__: error
    for error in (ProtocolError, SpecMismatch, SessionFenced, DeadlineExceeded, PolicyError, Refused)
}


def encode(message: Message) -> bytes:
    """Returns the header frame of a message."""
    return _PREFIX + _encoder.encode(message)


def decode_request(header: bytes | memoryview) -> Request:
    """Returns what an actor asks for; raises ProtocolError on anything else."""
    return _decode(header, _request_decoder, "a request of an actor")


def decode_reply(header: bytes | memoryview) -> Reply:
    """Returns what the learner answered; raises ProtocolError on anything else."""
    return _decode(header, _reply_decoder, "an answer of the learner")


def decode_announcement(frame: bytes | memoryview) -> Announcement:
    """Returns what the learner announces; raises ProtocolError on anything else."""
    return _decode(frame, _announcement_decoder, "an announcement")


def error_of(reply: ErrorReply) -> HiorsError:
    """Returns the exception that an error reply stands for."""
    kind = SessionFenced if reply.kind == ID_IN_USE else _ERRORS.get(reply.kind, Refused)
    return kind(reply.message)


def _decode(header: bytes | memoryview, decoder: msgspec.msgpack.Decoder[T], what: str) -> T:
    prefix = bytes(header[: len(_PREFIX)])
    if prefix[: len(_MAGIC)] != _MAGIC or len(prefix) < len(_PREFIX):
        raise ProtocolError(f"Expected {what}, got {len(header)} bytes that begin with {prefix!r}. Check the port.")
    if prefix != _PREFIX:
        raise ProtocolError(
            f"Expected protocol version {PROTOCOL_VERSION} (this side), got version {prefix[-1]} (the other side). "
            "Install the same release of hiors on both machines."
        )
    return decode_body(memoryview(header)[len(_PREFIX) :], decoder, what)


def decode_body(body: bytes | memoryview, decoder: msgspec.msgpack.Decoder[T], what: str) -> T:
    """Returns what MessagePack bytes hold; raises ProtocolError where they do not hold `what`."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolError(f"Expected {what}, got {len(body)} bytes that are none: {exc}.") from exc
