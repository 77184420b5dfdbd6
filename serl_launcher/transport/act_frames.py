"""The frames of action requests and their answers: observations, chunks under way, actions.

    request    header, then for each lane: what it sees but for the images, each image; last, unfinished actions
    answer     header, actions

Each image has a frame of its own: nothing copies it on the way, and while the second is encrypted the first is
decrypted already.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, cast

import msgspec
import numpy as np
from msgspec import Meta

from serl_launcher.errors import ProtocolError
from serl_launcher.events import MAX_IMAGE_BYTES, EncodedObservation, Name, VectorBytes
from serl_launcher.transport.messages import Act, ActReply, Frame, UnfinishedHeader, decode_body
from serl_launcher.types import Unfinished


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """An observation whose images follow in this order, one frame each."""

    cameras: Annotated[tuple[Name, ...], Meta(max_length=32)]
    state: VectorBytes
    prompt: Annotated[str, Meta(max_length=4000)]


_encoder = msgspec.msgpack.Encoder()
_seen_decoder = msgspec.msgpack.Decoder(_Seen)


def encode_observation_frames(observation: EncodedObservation) -> list[bytes]:
    """Returns one observation as frames of an Act request."""
    images = observation.images
    return [_encoder.encode(_Seen(tuple(images), observation.state, observation.prompt)), *images.values()]


def _decode_observation(frames: Iterator[Frame]) -> EncodedObservation:
    """Takes one observation off the frames; its images are views of them. Raises ProtocolError where it is none."""
    try:
        seen = decode_body(next(frames), _seen_decoder, "an observation")
        images = {name: next(frames) for name in seen.cameras}
    except StopIteration:
        raise ProtocolError("Expected a frame for each image of an observation, got fewer.") from None
    if len(images) < len(seen.cameras) or any(len(image) > MAX_IMAGE_BYTES for image in images.values()):
        raise ProtocolError(
            f"Expected images of different cameras of at most {MAX_IMAGE_BYTES} bytes, got cameras {seen.cameras} with "
            f"{[len(image) for image in images.values()]} bytes."
        )
    # Whoever decodes images takes views as well; nothing else is done with them.
    return EncodedObservation(cast("dict[str, bytes]", images), seen.state, seen.prompt)


def decode_actions(reply: ActReply, frame: bytes | memoryview, count: int) -> np.ndarray:
    """Returns float32 [count, horizon, action_dim]; raises ProtocolError on a frame of another size."""
    shape = (count, reply.horizon, reply.action_dim)
    expected = 4 * count * reply.horizon * reply.action_dim
    if len(frame) != expected:
        raise ProtocolError(f"Expected float32 actions of shape {shape} ({expected} bytes), got {len(frame)} bytes.")
    return np.frombuffer(frame, dtype="<f4").reshape(shape).astype(np.float32)


def encode_unfinished(unfinished: Sequence[Unfinished | None]) -> tuple[tuple[UnfinishedHeader, ...], bytes]:
    """Returns the headers of an Act request and its last frame."""
    headers = tuple(
        UnfinishedHeader(len(u.actions), u.delay_ticks) if u else UnfinishedHeader(0, 0) for u in unfinished
    )
    return headers, b"".join(np.asarray(each.actions, "<f4").tobytes() for each in unfinished if each)


def decode_act(
    request: Act, frames: Sequence[Frame], action_dim: int
) -> tuple[list[EncodedObservation], list[Unfinished | None]]:
    """Returns the observations of an Act request and what each lane still executes, empty where it is not told.

    The images are views of the frames.

    Raises:
        ProtocolError: The frames are not what the header says.
    """
    left = iter(frames)
    observations = [_decode_observation(left) for _ in range(request.count)]
    rest = list(left)
    if len(rest) != bool(request.unfinished):
        raise ProtocolError(f"Expected {int(bool(request.unfinished))} frames after the observations, got {len(rest)}.")
    return observations, _decode_unfinished(request, rest[0], action_dim) if rest else []


def _decode_unfinished(request: Act, frame: Frame, action_dim: int) -> list[Unfinished | None]:
    total = sum(header.num_actions for header in request.unfinished)
    if len(request.unfinished) != request.count or len(frame) != 4 * total * action_dim:
        raise ProtocolError(
            f"Expected {request.count} headers and {total} unfinished actions of {action_dim} float32, got "
            f"{len(request.unfinished)} headers and {len(frame)} bytes."
        )
    rows = np.frombuffer(frame, "<f4").reshape(total, action_dim)
    if not np.isfinite(rows).all():
        raise ProtocolError("Expected finite unfinished actions.")
    ends = np.cumsum([header.num_actions for header in request.unfinished])
    return [
        Unfinished(actions=rows[end - header.num_actions : end], delay_ticks=header.delay_ticks)
        if header.num_actions
        else None
        for header, end in zip(request.unfinished, ends, strict=True)
    ]
