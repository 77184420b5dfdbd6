"""What page and actor tell each other: JSON text, typed; pictures are binary: the camera in one byte, a JPEG."""

import msgspec

from serl_launcher.errors import ProtocolError
from serl_launcher.types import Outcome

MAX_BYTES = 8 * 1024
MAX_AXES = 256


class Jog(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="jog"):
    """I am here, and hold the axes like this, by action name, each in [-1, 1]. Sent ten times a second."""

    axes: dict[str, float] = {}


class Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="name"):
    """What I am called."""

    name: str


class TakeOver(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="take_over"):
    """I drive from now on."""


class HandBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hand_back"):
    """The policy acts again."""


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="release"):
    """Somebody else may control the robot."""


class Judge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="judge"):
    """This episode is over, like this (`success`, `failure`, `aborted`)."""

    outcome: Outcome


class Correct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="correct"):
    """The last finished episode was really like this; `unlabelled` takes its label back."""

    outcome: Outcome


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stop"):
    """Stop the robot; anybody may say so."""


class Clear(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="clear"):
    """I have looked, and the robot may move again."""


Said = Jog | Name | TakeOver | HandBack | Release | Judge | Correct | Stop | Clear


class Refusal(msgspec.Struct, frozen=True, tag="refused"):
    """Why something was not done."""

    message: str


class JogAxis(msgspec.Struct, frozen=True):
    """One action that can be jogged, and its range in robot units."""

    name: str
    low: float
    high: float


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The first thing that a viewer hears."""

    viewer: int
    robot: str
    actor_id: str
    run: str
    hz: float
    cameras: tuple[str, ...]
    axes: tuple[JogAxis, ...]
    is_collecting: bool
    """Whether the person drives every episode: there is no policy."""


class State(msgspec.Struct, frozen=True, tag="state"):
    """How the control loop is doing."""

    mode: str
    holder: str
    has_seat: bool
    num_viewers: int
    is_resetting: bool
    still_s: float
    """Since the control loop last looked."""
    picture_age_s: float
    """Since anybody looked: how old the pictures and the measured state are."""
    waits_for: str
    """What the loop waits for; empty where it does not wait, or nobody knows."""
    rate_hz: float
    num_missed: int
    source: str
    """Who chose the last action: `policy`, `person`, `held` (nobody)."""
    fault: str
    episode: int
    step: int
    num_human_steps: int
    num_takeovers: int
    prompt: str
    last_outcome: str
    """Newest label of the last ended episode."""
    policy_version: int
    is_connected: bool
    """With the learner."""
    num_unsent: int
    unsent_bytes: int
    num_episodes: int
    success_rate_20: float
    intervention_rate_20: float
    state: tuple[float, ...]
    """Measured, in robot units, as many as there are actions where actions are positions; else empty."""


_decoder = msgspec.json.Decoder(Said)
_encoder = msgspec.json.Encoder()


def decode(text: str | bytes) -> Said:
    """Returns what a page says; raises ProtocolError where it makes no sense."""
    try:
        said = _decoder.decode(text)
    except msgspec.MsgspecError as exc:
        raise ProtocolError(f"Expected one of the console's messages: {exc}.") from exc
    if isinstance(said, Jog) and len(said.axes) > MAX_AXES:
        raise ProtocolError(f"Expected {MAX_AXES} axes at most, got {len(said.axes)}.")
    return said


def encode(told: Refusal | Welcome | State) -> str:
    """Returns what a page is told."""
    return _encoder.encode(told).decode()
