"""What inference is made of: policies, requests and their answers."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from learner.server.decoding import Decoding
from learner.server.lanes import Lanes
from serl_launcher.errors import HiorsError, PolicyError
from serl_launcher.events import EncodedObservation
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.messages import ActReply, ErrorReply
from serl_launcher.types import Unfinished

Reply = Callable[[ActReply | ErrorReply, np.ndarray | None], None]
"""Takes the answer and, for an `ActReply`, float32 [B, H, A]. Called from the inference thread."""

_MAX_MESSAGE_CHARS = 2000


class Policy(Protocol):
    """What acts."""

    spec: RobotSpec

    def act(self, images: np.ndarray, state: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Returns float32 [B, H, A] for uint8 [B, C, height, width, 3], float32 [B, S] and B prompts."""
        ...


@runtime_checkable
class LanesPolicy(Protocol):
    """A policy that also knows absent cameras and unfinished chunks."""

    def act_on(self, lanes: Lanes) -> np.ndarray:
        """Returns float32 [B, H, A]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy and its version; never changed, only replaced."""

    policy: Policy
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One actor's question: observations of one or more lanes."""

    key: Hashable
    observations: Sequence[EncodedObservation] | Lanes
    """Encoded, or decoded already."""
    deadline_s: float
    """Monotonic time after which nobody waits for the answer."""
    reply: Reply
    arrived_s: float
    unfinished: Sequence[Unfinished | None] = ()
    decoding: Decoding | None = None
    """Observations that began to be decoded when they came; None: they are decoded when their turn comes."""

    def __len__(self) -> int:
        """Returns the number of observations."""
        return len(self.observations)


Batch = list[tuple[Request, Lanes]]
"""Requests with their decoded observations."""


class NoInference:
    """Stands in where no policy exists (`algo=data_collection`): every request is refused."""

    policy_version = -1

    def submit(
        self,
        request_key: Hashable,
        observations: Sequence[EncodedObservation],
        deadline_monotonic: float,
        reply: Reply,
        unfinished: Sequence[Unfinished | None] = (),
    ) -> None:
        """Answers at once that there is no policy."""
        refusal = "No policy: this learner only collects data (algo=data_collection). Use actor.mode=collect."
        reply(error_reply(PolicyError(refusal)), None)

    def figures(self) -> dict[str, float]:
        """Returns nothing: nothing is answered."""
        return {}


def refuse(requests: Sequence[Request], exc: BaseException) -> None:
    """Answers requests with an error."""
    for request in requests:
        request.reply(error_reply(exc), None)


def error_reply(exc: BaseException) -> ErrorReply:
    """Returns an exception as it travels; foreign ones are errors of the policy."""
    is_ours = isinstance(exc, HiorsError)
    kind = type(exc).__name__ if is_ours else PolicyError.__name__
    message = str(exc) if is_ours else f"{type(exc).__name__}: {exc}"
    return ErrorReply(kind, message[:_MAX_MESSAGE_CHARS])
