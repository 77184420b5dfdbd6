"""What the gateway expects of whoever answers action requests."""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np

from serl_launcher.events import EncodedObservation
from serl_launcher.transport.messages import ActReply, ErrorReply
from serl_launcher.types import Unfinished

InferenceReply = Callable[[ActReply | ErrorReply, np.ndarray | None], None]


class InferenceBackend(Protocol):
    """What answers action requests."""

    @property
    def policy_version(self) -> int:
        """Version of the weights in force, -1 before the first."""
        ...

    def submit(
        self,
        request_key: Hashable,
        observations: Sequence[EncodedObservation],
        deadline_monotonic: float,
        reply: InferenceReply,
        unfinished: Sequence[Unfinished | None] = (),
    ) -> None:
        """Answers through `reply`, once, from any thread; float32 [B, H, A] with an `ActReply`.

        `unfinished` says what each lane still executes; empty where that is not known.
        """
        ...
