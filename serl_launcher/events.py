"""What an actor records: a stream of events, encoded once and stored as the same bytes everywhere.

The spool of the actor, the wire, the journal of the learner and (for images) the dataset hold these bytes.

    EpisodeStarted  StepRecorded*  EpisodeEnded  (EpisodeLabelled)*

Episodes of one actor may interleave (one per lane). Every event gets the next sequence number of its actor session; the
triple (actor id, session epoch, sequence) names it for ever.
"""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from serl_launcher.errors import ProtocolError
from serl_launcher.images import check_image, encode_image
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation, Outcome, Source

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_VECTOR_BYTES = 64 * 1024
MAX_IMAGES_BYTES = 64 * 1024 * 1024
"""All pictures of one observation."""
MAX_EVENT_BYTES = MAX_IMAGES_BYTES + 1024 * 1024
"""No event is larger: its vectors and texts are bounded too."""
MAX_ID_BYTES = 500
"""Longest actor or episode id, in UTF-8: the journal has keys of them."""

Name = Annotated[str, Meta(max_length=200)]
ImageBytes = Annotated[bytes, Meta(max_length=MAX_IMAGE_BYTES)]
VectorBytes = Annotated[bytes, Meta(max_length=MAX_VECTOR_BYTES)]


class EncodedObservation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """An observation as it travels: images encoded per camera, state as little-endian float32 bytes."""

    images: Annotated[dict[Name, ImageBytes], Meta(max_length=32)]
    state: VectorBytes
    prompt: Annotated[str, Meta(max_length=4000)]


class EpisodeStarted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="episode_started"):
    """An episode begins. `episode_id` is unique for ever: `<actor id>-<epoch>-<number>`."""

    episode_id: Name
    prompt: Annotated[str, Meta(max_length=4000)]
    wall_time_s: float
    seed: int | None = None
    """Seed of the reset, where the environment has one."""


class StepRecorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="step"):
    """One control tick: the observation and the action that was *executed* on it, by whoever."""

    episode_id: Name
    step: int
    """Number of the step in its episode, from 0, without gaps."""
    observation: EncodedObservation
    action: VectorBytes
    """Executed action, float32 [A]."""
    reward: float
    terminated: bool
    truncated: bool
    source: int
    """A `Source`."""
    policy_version: int
    """Version of the weights that proposed an action at this tick; -1 where no policy was asked."""
    wall_time_s: float
    monotonic_s: float
    proposal: VectorBytes | None = None
    """What the policy proposed when a human overrode it, float32 [A]."""


class EpisodeEnded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="episode_ended"):
    """An episode is complete: its final observation and, where known, its outcome."""

    episode_id: Name
    num_steps: int
    final_observation: EncodedObservation
    outcome: Outcome
    labelled_by: Name
    """Who judged: `human`, `script`, `environment`, `classifier` or empty."""
    wall_time_s: float


class EpisodeLabelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="episode_labelled"):
    """A late or corrected label. The newest one counts, by sequence."""

    episode_id: Name
    outcome: Outcome
    labelled_by: Name
    wall_time_s: float


class _SeenObservation(EncodedObservation, frozen=True, forbid_unknown_fields=True, array_like=True):
    images: Annotated[dict[Name, Annotated[memoryview, Meta(max_length=MAX_IMAGE_BYTES)]], Meta(max_length=32)]  # pyright: ignore[reportIncompatibleVariableOverride] - It is only looked at.


class _SeenStep(StepRecorded, frozen=True, forbid_unknown_fields=True, tag="step"):
    observation: _SeenObservation


class _SeenEnd(EpisodeEnded, frozen=True, forbid_unknown_fields=True, tag="episode_ended"):
    final_observation: _SeenObservation


Event = EpisodeStarted | StepRecorded | EpisodeEnded | EpisodeLabelled

_SOURCES = frozenset(int(source) for source in Source)
_INT64 = range(-(2**63), 2**63)
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Event)
_viewer = msgspec.msgpack.Decoder(EpisodeStarted | _SeenStep | _SeenEnd | EpisodeLabelled)


def encode_event(event: Event) -> bytes:
    """Returns the bytes that are spooled, sent, journalled and acknowledged."""
    return _encoder.encode(event)


def decode_event(encoded: bytes | memoryview) -> Event:
    """Returns the event in those bytes.

    Raises:
        ProtocolError: The bytes are no event, or have unknown fields or oversized members.
    """
    return _decoded(encoded, _decoder)


def view_event(encoded: bytes | memoryview) -> Event:
    """Like `decode_event`, but pictures are views into those bytes: for a look at an event, not for keeping it."""
    return _decoded(encoded, _viewer)


def _decoded(encoded: bytes | memoryview, decoder: msgspec.msgpack.Decoder) -> Event:
    try:
        return decoder.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolError(f"Expected a recorded event, got {len(encoded)} bytes that are none: {exc}.") from exc


def encode_observation(observation: Observation, spec: RobotSpec) -> EncodedObservation:
    """Encodes every camera of the spec and the state; raises ValueError where the observation does not fit it."""
    missing = [name for name in spec.camera_names if name not in observation.images]
    if missing:
        raise ValueError(f"Robot {spec.name!r} expects cameras {list(spec.camera_names)}; {missing} are missing.")
    images = {camera.name: encode_image(observation.images[camera.name], camera) for camera in spec.cameras}
    return EncodedObservation(images, encode_vector(observation.state, spec.state_dim, "state"), observation.prompt)


def encode_vector(values: np.ndarray, width: int, what: str) -> bytes:
    """Returns `width` finite numbers as little-endian float32 bytes; raises ValueError on anything else."""
    values = np.asarray(values, dtype="<f4")
    if values.shape != (width,):
        raise ValueError(f"Expected {what} of shape ({width},), got {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"Expected a finite {what}, got {values.tolist()}.")
    return values.tobytes()


def decode_vector(encoded: bytes | memoryview, width: int, what: str) -> np.ndarray:
    """Returns float32 [width]; raises ProtocolError on another width."""
    if len(encoded) != 4 * width:
        raise ProtocolError(f"Expected {what} of {width} float32 ({4 * width} bytes), got {len(encoded)} bytes.")
    return np.frombuffer(encoded, dtype="<f4")


def check_recordable(event: Event, spec: RobotSpec) -> None:
    """Raises ProtocolError where a learner would refuse the bytes of an event for ever, so that nobody stores it."""
    try:
        msgspec.convert(msgspec.to_builtins(event, builtin_types=(bytes,)), Event)
    except (msgspec.ValidationError, OverflowError) as exc:
        raise ProtocolError(f"Expected an event that can be recorded, got {type(event).__name__}: {exc}.") from exc
    check_fits(event, spec)


def check_fits(event: Event, spec: RobotSpec) -> None:
    """Raises ProtocolError where an event does not fit the robot, or holds a number that no dataset can take."""
    if not 0 < len(event.episode_id.encode()) <= MAX_ID_BYTES:
        raise ProtocolError(f"Expected an episode id of 1 to {MAX_ID_BYTES} bytes, got {event.episode_id!r}.")
    _check_finite(event.wall_time_s, "wall_time_s")
    if isinstance(event, StepRecorded):
        _check_step(event, spec)
    elif isinstance(event, EpisodeEnded):
        _check_observation(event.final_observation, spec)
    elif isinstance(event, EpisodeStarted) and event.seed is not None:
        _check_int64(event.seed, "seed")


def _check_step(event: StepRecorded, spec: RobotSpec) -> None:
    _check_observation(event.observation, spec)
    _check_vector(event.action, spec.action_dim, "action")
    if event.proposal is not None:
        _check_vector(event.proposal, spec.action_dim, "proposal")
    _check_finite(event.reward, "reward")
    _check_finite(event.monotonic_s, "monotonic_s")
    _check_int64(event.policy_version, "policy_version")
    if event.source not in _SOURCES:
        raise ProtocolError(f"Expected a source among {sorted(_SOURCES)}, got {event.source}.")
    if event.step < 0:
        raise ProtocolError(f"Expected a step number from 0, got {event.step}.")


def _check_observation(observation: EncodedObservation, spec: RobotSpec) -> None:
    images = observation.images
    if set(images) != set(spec.camera_names):
        raise ProtocolError(f"Expected cameras {sorted(spec.camera_names)}, got {sorted(images)}.")
    if sum(map(len, images.values())) > MAX_IMAGES_BYTES:
        sizes = {name: len(image) for name, image in images.items()}
        raise ProtocolError(f"Expected pictures of at most {MAX_IMAGES_BYTES} bytes together, got {sizes}.")
    for camera in spec.cameras:
        try:
            check_image(images[camera.name], camera.shape)
        except ProtocolError as exc:
            raise ProtocolError(f"Camera {camera.name!r}: {exc}") from exc
    _check_vector(observation.state, spec.state_dim, "state")


def _check_vector(encoded: bytes | memoryview, width: int, what: str) -> None:
    values = decode_vector(encoded, width, what)
    if not np.isfinite(values).all():
        raise ProtocolError(f"Expected a finite {what}, got {values.tolist()}.")


def _check_finite(value: float, what: str) -> None:
    if not abs(value) <= _MAX_FLOAT32:  # Not a number is not below anything.
        raise ProtocolError(f"Expected a finite {what} of at most {_MAX_FLOAT32:.2g}, got {value}.")


def _check_int64(value: int, what: str) -> None:
    if value not in _INT64:
        raise ProtocolError(f"Expected a {what} of 64 bits, got {value}.")
