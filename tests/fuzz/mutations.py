"""Damaged messages, drawn from valid ones: flipped bits, wrong lengths, wrong types, nested and oversized members."""

import pickle
import random
from collections.abc import Sequence

import msgspec

from serl_launcher.events import encode_event
from serl_launcher.transport import act_frames, messages
from serl_launcher.transport.messages import (
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
from tests.transport_rig import SPEC, encoded, episode

Frames = list[bytes]

POLICY_VERSION = 1
"""What the learner serves."""

_ANNOUNCEMENT = Announcement(3, "ab" * 32, False, False, 1.5)
_PREFIX = messages.encode(Heartbeat())[:3]
_ODD_VALUES: Sequence[object] = (
    None, True, -1, 2**63, -(2**63), 1e308, float("nan"), float("inf"), "", "\0" * 300, b"", b"x" * 300, [], {},
    [[[[]]]], {"type": "steps"}, "../../etc/passwd", "x" * 5000,
)  # fmt: skip
_HUGE = (b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff")
"""MessagePack headers that promise four thousand million bytes, characters, items and members."""


def hello(actor_id: str) -> Hello:
    """Returns a hello that the learner accepts."""
    return Hello(actor_id, 1, SPEC.digest(), SPEC, f"spool-of-{actor_id}", 0)


def valid_requests() -> list[Frames]:
    """Returns one good example of everything an actor says."""
    events = [encode_event(event) for event in episode("fuzz-episode", 2)]
    observation = act_frames.encode_observation_frames(encoded(1))
    return [
        [messages.encode(hello("fuzz"))],
        [messages.encode(Steps(1, len(events))), *events],
        [messages.encode(Act(1, 100.0, 2)), *observation, *observation],
        [messages.encode(Stats({"success": 0.5, "mode": "online"}))],
        [messages.encode(Fetch(1, POLICY_VERSION, "model.safetensors", 0, 1000))],
        [messages.encode(Heartbeat())],
        [messages.encode(Goodbye())],
    ]


def valid_replies() -> list[Frames]:
    """Returns one good example of everything the learner says."""
    replies = [
        Welcome(9, 4, 7, _ANNOUNCEMENT), Ack(9), ActReply(7, 8, 2, {"model": 2.0}, 1), FetchReply(1, 0, 100),
        ErrorReply("PolicyError", "no policy", 3), _ANNOUNCEMENT,
    ]  # fmt: skip
    return [[messages.encode(reply), bytes(64)] for reply in replies]


class Mutator:
    """Draws damaged messages; the same seed draws the same ones."""

    def __init__(self, valid: Sequence[Frames], seed: int) -> None:
        self._valid = list(valid)
        self._draw = random.Random(seed)

    def draw(self) -> Frames:
        """Returns the frames of one message, most of them damaged."""
        frames = list(self._draw.choice(self._valid))
        for _ in range(self._draw.randint(1, 3)):
            frames = self._damaged(frames)
        return frames

    def _damaged(self, frames: Frames) -> Frames:
        how = self._draw.randrange(8)
        if how == 0:
            return self._with_other_frames(frames)
        index = self._draw.randrange(len(frames)) if frames else 0
        if not frames:
            return [self._draw.randbytes(self._draw.randint(0, 40))]
        changes = (
            self._flip, self._flip, self._cut, self._splice, self._retype, self._retype, self._inflate,
        )  # fmt: skip
        return [*frames[:index], changes[how - 1](frames[index]), *frames[index + 1 :]]

    def _with_other_frames(self, frames: Frames) -> Frames:
        choice = self._draw.randrange(4)
        if choice == 0:
            return frames[: self._draw.randint(0, len(frames))]
        if choice == 1:
            return frames + frames[1:] * self._draw.randint(1, 20)
        if choice == 2:
            return [pickle.dumps(print), *frames[1:]]
        return self._draw.sample(frames, len(frames))

    def _flip(self, frame: bytes) -> bytes:
        changed = bytearray(frame)
        for _ in range(self._draw.randint(1, 8) if changed else 0):
            changed[self._draw.randrange(min(len(changed), 400))] = self._draw.randrange(256)
        return bytes(changed)

    def _cut(self, frame: bytes) -> bytes:
        return frame[: self._draw.randint(0, len(frame))] + self._draw.randbytes(self._draw.choice((0, 0, 3, 50)))

    def _splice(self, frame: bytes) -> bytes:
        other = self._draw.choice(self._draw.choice(self._valid))
        place = self._draw.randint(0, len(frame))
        return frame[:place] + other[self._draw.randint(0, len(other)) :]

    def _inflate(self, frame: bytes) -> bytes:
        place = self._draw.randint(3, max(3, min(len(frame), 60)))
        huge = self._draw.choice((*_HUGE, b"\x91" * 5000, b"\x81\xa1x" * 3000))
        return frame[:place] + huge + frame[place:]

    def _retype(self, frame: bytes) -> bytes:
        """Decodes a frame, puts something else into one member, and encodes it again."""
        prefix, body = (_PREFIX, frame[3:]) if frame.startswith(_PREFIX) else (b"", frame)
        try:
            return prefix + msgspec.msgpack.encode(self._replaced(msgspec.msgpack.decode(body)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
            return self._flip(frame)

    def _replaced(self, content: object) -> object:
        if isinstance(content, dict) and content and self._draw.random() < 0.9:
            key = self._draw.choice(list(content))
            if self._draw.random() < 0.1:
                return {**content, "unknown": 1}
            return {**content, key: self._replaced(content[key])}
        if isinstance(content, list) and content and self._draw.random() < 0.9:
            place = self._draw.randrange(len(content))
            return [*content[:place], self._replaced(content[place]), *content[place + 1 :]]
        if isinstance(content, bytes) and self._draw.random() < 0.5:
            return self._cut(content)
        if isinstance(content, int) and self._draw.random() < 0.5:
            return content + self._draw.choice((-1, 1, 2**31, 2**62))
        return self._draw.choice(_ODD_VALUES)
