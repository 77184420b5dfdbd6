"""The frames of action requests and their answers: observations, chunks under way, actions."""

from collections.abc import Sequence

import msgspec
import numpy as np

from serl_launcher.errors import ProtocolError
from serl_launcher.events import EncodedObservation
from serl_launcher.transport.messages import Act, ActReply, UnfinishedHeader, decode_body
from serl_launcher.types import Unfinished

_encoder = msgspec.msgpack.Encoder()
_observation_decoder = msgspec.msgpack.Decoder(EncodedObservation)


def encode_observation_frame(observation: EncodedObservation) -> bytes:
    """Returns one observation as a frame of an Act request."""
    return _encoder.encode(observation)


def decode_observation_frame(frame: bytes | memoryview) -> EncodedObservation:
    """Returns the observation in a frame; raises ProtocolError on anything else."""
    return decode_body(frame, _observation_decoder, "an observation")


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
    request: Act, frames: Sequence[bytes], action_dim: int
) -> tuple[list[EncodedObservation], list[Unfinished | None]]:
    """Returns the observations of an Act request and what each lane still executes, empty where it is not told.

    Raises:
        ProtocolError: The frames are not what the header says.
    """
    expected = request.count + bool(request.unfinished)
    if len(frames) != expected:
        raise ProtocolError(f"Expected {expected} frames, one per observation, got {len(frames)}.")
    observations = [decode_observation_frame(frame) for frame in frames[: request.count]]
    return observations, _decode_unfinished(request, frames[-1], action_dim) if request.unfinished else []


def _decode_unfinished(request: Act, frame: bytes, action_dim: int) -> list[Unfinished | None]:
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
