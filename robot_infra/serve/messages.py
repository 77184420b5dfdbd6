"""What travels between a robot's computer and its actor: one MessagePack frame each way, questions and answers.

A Hello is answered by Welcome; the robot obeys one actor at a time. Then one question at a time, each with its number:
Reset by Seen, Step by Done, Clear and Beat (alive between episodes) by Beat, and anything by Failed, which says whether
a person is needed. Stop is answered by Beat at once, whatever the robot does at the moment and whoever drives it.
"""

from typing import Annotated, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from serl_launcher.errors import ProtocolError
from serl_launcher.images import decode_image
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import Frame
from serl_launcher.types import Observation

VERSION = 3
MAX_IMAGE_BYTES = 32 * 1024 * 1024

Number = Annotated[int, Meta(ge=0, le=2**62)]
Seed = Annotated[int, Meta(ge=0, le=2**62)]
Name = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=4000)]
Pixels = Annotated[bytes, Meta(max_length=MAX_IMAGE_BYTES)]
Vector = Annotated[bytes, Meta(max_length=65536)]


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hello"):
    """An actor wants to drive the robot."""

    number: Number
    actor_id: Name
    version: int = VERSION


class Welcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="welcome"):
    """The robot obeys this actor now."""

    number: Number
    spec: RobotSpec


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reset"):
    """Begin an episode."""

    number: Number
    seed: Seed


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="step"):
    """One tick."""

    number: Number
    action: Vector
    """float32 [A], little-endian."""


class Beat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="beat"):
    """Still there."""

    number: Number


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stop"):
    """Stop in an emergency; everybody who may connect may say so."""

    number: Number
    reason: Text


class Clear(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="clear"):
    """A person has looked, and the robot may move again."""

    number: Number
    by: Name


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="seen"):
    """An observation; images are raw pixels, so that they are compressed once, by the actor."""

    number: Number
    images: Annotated[dict[Name, Pixels], Meta(max_length=32)]
    state: Vector
    prompt: Text


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="done"):
    """What came of a step."""

    number: Number
    seen: Seen
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    executed: Vector
    cost: float


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """What went wrong."""

    number: Number
    reason: Text
    is_safety: bool
    """Whether the robot holds because of a fault that a person must clear."""


Question = Hello | Reset | Step | Beat | Stop | Clear
Answer = Welcome | Seen | Done | Beat | Failed
T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(Question)
_answers = msgspec.msgpack.Decoder(Answer)


def encode(message: Question | Answer) -> bytes:
    """Returns the frame of a message."""
    return _encoder.encode(message)


def decode_question(frame: Frame) -> Question:
    """Returns the question in a frame; raises ProtocolError where it is none."""
    return _decoded(_questions, frame)


def decode_answer(frame: Frame) -> Answer:
    """Returns the answer in a frame; raises ProtocolError where it is none."""
    return _decoded(_answers, frame)


def _decoded(decoder: "msgspec.msgpack.Decoder[T]", frame: Frame) -> T:
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise ProtocolError(f"Expected a message of the robot's protocol, got {len(frame)} bytes: {exc}.") from exc


def encode_seen(number: int, observation: Observation) -> Seen:
    """Returns an observation as a message."""
    images = {name: np.ascontiguousarray(image).tobytes() for name, image in observation.images.items()}
    return Seen(number, images, observation.state.astype("<f4").tobytes(), observation.prompt)


def decode_seen(seen: Seen, spec: RobotSpec) -> Observation:
    """Returns the observation; raises ProtocolError where it does not fit the robot."""
    if set(seen.images) != set(spec.camera_names) or len(seen.state) != 4 * spec.state_dim:
        raise ProtocolError(
            f"Expected cameras {list(spec.camera_names)} and {spec.state_dim} states, got {sorted(seen.images)} and "
            f"{len(seen.state)} bytes."
        )
    images = {}
    for camera in spec.cameras:
        if len(seen.images[camera.name]) != int(np.prod(camera.shape)):
            raise ProtocolError(f"Expected raw pixels {camera.shape} of {camera.name!r}.")
        images[camera.name] = decode_image(seen.images[camera.name], camera.shape)
    return Observation(images=images, state=np.frombuffer(seen.state, "<f4").copy(), prompt=seen.prompt)
