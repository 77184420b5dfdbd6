"""Decodes the images of requests that wait, while the policy acts on others."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from learner.server.lanes import Lanes, decode_lanes
from serl_launcher.events import EncodedObservation
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Unfinished

_NUM_THREADS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """One request's observations under way to arrays."""

    spec: RobotSpec
    """The robot they are decoded for."""
    lanes: Future[Lanes]

    def take(self, spec: RobotSpec) -> Lanes | None:
        """Returns the result, waiting for what has begun; None where it has not, or was for another robot.

        Raises:
            ProtocolError: An observation does not fit the robot.
        """
        if self.lanes.cancel() or self.spec != spec:
            return None
        return self.lanes.result()


class Decoder:
    """A few threads; decoders of images let the interpreter's lock go."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="decoding")

    def begin(
        self, observations: Sequence[EncodedObservation], spec: RobotSpec, unfinished: Sequence[Unfinished | None]
    ) -> Decoding:
        """Returns at once."""
        return Decoding(spec=spec, lanes=self._threads.submit(decode_lanes, observations, spec, unfinished))

    def stop(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)
