"""The actor's side of the network: delivers what was recorded, asks for actions, hears announcements.

Nothing that the control loop calls waits for the network, except `act`, `flush` and `fetch_policy`, each with its own
deadline.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import DeadlineExceeded, HiorsError, PolicyError, ProtocolError
from serl_launcher.events import encode_observation
from serl_launcher.specs import RobotSpec
from serl_launcher.transport import act_frames
from serl_launcher.transport.connection import Connection
from serl_launcher.transport.delivery import EventSource
from serl_launcher.transport.fetching import fetch
from serl_launcher.transport.messages import Act, ActReply, Announcement, Fetch, FetchReply
from serl_launcher.transport.requests import Answer, Request
from serl_launcher.types import ActionChunk, Observation, Unfinished

__all__ = ["EventSource", "LearnerClient"]


class LearnerClient:
    """One actor's connection to the learner; finds it whenever it is there, for ever."""

    def __init__(
        self, config: TransportConfig, address: str, *, actor_id: str, spec: RobotSpec, spool: EventSource
    ) -> None:
        """Prepares the connection; `start` begins it.

        Raises:
            ConfigError: `keys_dir` is set, but there are no keys for this actor.
        """
        self._config = config
        self._spec = spec
        self._connection = Connection(config, address, actor_id=actor_id, spec=spec, source=spool)

    def start(self) -> None:
        """Begins to connect, in the background."""
        self._connection.start()

    def close(self) -> None:
        """Ends the connection within two seconds; requests under way raise Refused. May be called twice."""
        self._connection.close()

    @property
    def is_connected(self) -> bool:
        """Whether the learner has admitted this actor and gave a sign of life lately."""
        return self._connection.is_connected

    @property
    def announcement(self) -> Announcement | None:
        """The newest announcement; None before the first."""
        return self._connection.announcement

    @property
    def last_error(self) -> HiorsError | None:
        """Why the learner does not serve this actor, where it said so; None while it does."""
        return self._connection.last_error

    def set_address(self, address: str) -> None:
        """Goes on with the learner at another address."""
        self._connection.set_address(address)

    def send_stats(self, values: Mapping[str, float | int | str]) -> None:
        """Tells the learner the newest figures of this actor, when it can be reached; returns at once."""
        self._connection.send_stats(values)

    def flush(self, timeout_s: float) -> bool:
        """Waits until the learner has committed everything that was recorded; returns whether it has."""
        return self._connection.wait_until_delivered(timeout_s)

    def act(self, observations: list[Observation], *, timeout_s: float) -> list[ActionChunk]:
        """Returns one chunk per observation, all from the same weights.

        Raises:
            DeadlineExceeded: No answer within `timeout_s`, for instance because the learner is away.
            PolicyError: The learner has no policy, or it failed.
            Refused, SessionFenced, SpecMismatch: The learner does not serve this actor.
            ValueError: An observation does not fit the robot.
        """
        try:
            return self.act_async(observations, timeout_s=timeout_s).result(timeout_s + 1.0)
        except TimeoutError as exc:
            raise DeadlineExceeded(f"No actions within {timeout_s:g} s.") from exc

    def act_async(
        self, observations: list[Observation], *, timeout_s: float, unfinished: Sequence[Unfinished | None] = ()
    ) -> "Future[list[ActionChunk]]":
        """Returns at once; the future gives what `act` returns or raises, at the latest after `timeout_s`.

        Args:
            observations: One per lane.
            timeout_s: Deadline.
            unfinished: What each lane still executes, for policies that continue it; empty: not told.
        """
        began_s = time.monotonic()
        frames = [
            frame
            for each in observations
            for frame in act_frames.encode_observation_frames(encode_observation(each, self._spec))
        ]
        count = len(observations)
        headers, rest = act_frames.encode_unfinished(unfinished)
        if headers:
            frames.append(rest)
        request = Request(
            make_header=lambda request_id, left_ms: Act(request_id, left_ms, count, headers),
            frames=frames,
            read=partial(_chunks, count=count, action_dim=self._spec.action_dim, began_s=began_s),
            deadline_s=began_s + timeout_s,
            what="a request for actions",
        )
        return self._connection.ask(request)

    def fetch_policy(self, version: int, destination: Path, *, timeout_s: float) -> Path:
        """Returns `destination` once it holds that published policy, every checksum verified.

        Resumes a cut-off fetch, and takes unchanged tensors from other published policies beside `destination`.

        Raises:
            DeadlineExceeded: It took longer than `timeout_s`; what arrived is kept for the next attempt.
            PolicyError: The learner does not have that version (any more), or a file arrived damaged.
        """
        deadline_s = time.monotonic() + timeout_s

        def ask(file: str, offset: int, size: int) -> "Future[tuple[bytes, int]]":
            return self._connection.ask(
                Request(
                    make_header=lambda request_id, _left_ms: Fetch(request_id, version, file, offset, size),
                    frames=(),
                    read=_piece,
                    deadline_s=deadline_s,
                    what=f"a request for {file!r} of policy {version}",
                )
            )

        return fetch(ask, version, destination, piece_bytes=self._config.fetch_chunk_bytes)


def _chunks(
    reply: Answer, frames: Sequence[bytes], *, count: int, action_dim: int, began_s: float
) -> list[ActionChunk]:
    if not isinstance(reply, ActReply) or len(frames) != 1 or reply.action_dim != action_dim:
        raise ProtocolError(f"Expected one frame of {count} chunks of {action_dim} joints, got {reply!r}.")
    actions = act_frames.decode_actions(reply, frames[0], count)
    if not np.isfinite(actions).all():
        raise PolicyError(f"Policy {reply.policy_version} gave actions that are not finite; the robot must hold.")
    timings = {**reply.timings, "round_trip": 1e3 * (time.monotonic() - began_s)}
    return [ActionChunk(actions=chunk, policy_version=reply.policy_version, timings_ms=timings) for chunk in actions]


def _piece(reply: Answer, frames: Sequence[bytes]) -> tuple[bytes, int]:
    if not isinstance(reply, FetchReply) or len(frames) != 1:
        raise ProtocolError(f"Expected one piece of a file, got {reply!r} with {len(frames)} frames.")
    return frames[0], reply.total_bytes
