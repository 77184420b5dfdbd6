"""Keeps one actor connected to the learner, for ever.

    (sockets made) --Hello--> (waiting) --Welcome--> (connected) --silence--> (sockets made anew)
                                  ^---error, no session---'  '---SessionFenced---> (fenced: for good)

One thread owns the sockets and speaks for all others; requests are sent by whoever asks, where the sockets are free.
"""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import HiorsError, ProtocolError, Refused, SpoolFull, TransportError
from serl_launcher.specs import RobotSpec
from serl_launcher.transport import messages
from serl_launcher.transport.address import locate
from serl_launcher.transport.delivery import Delivery, EventSource, Syncer
from serl_launcher.transport.keys import read_actor_keys
from serl_launcher.transport.messages import (
    Ack,
    ActReply,
    Announcement,
    ErrorReply,
    FetchReply,
    Goodbye,
    Heartbeat,
    Hello,
    Stats,
    Welcome,
)
from serl_launcher.transport.requests import Request, RequestTable
from serl_launcher.transport.sockets import ActorSockets
from serl_launcher.transport.standing import STORAGE_RETRY_S, Standing
from serl_launcher.transport.waker import Waker

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_REPLIES_AT_ONCE = 256
_GOODBYE_S = 0.3


class Connection:
    """The session of one actor with the learner."""

    def __init__(
        self, config: TransportConfig, address: str, *, actor_id: str, spec: RobotSpec, source: EventSource
    ) -> None:
        """Prepares the connection; `start` begins it.

        Raises:
            ConfigError: `keys_dir` is set, but there are no keys for this actor.
        """
        self._config = config
        self._address = address
        self._actor_id = actor_id
        self._spec = spec
        self._source = source
        self._keys = read_actor_keys(Path(config.keys_dir), actor_id) if config.keys_dir else None
        self._waker = Waker()
        self._delivery = Delivery(config, source)
        self._syncer = Syncer(source, on_synced=self._waker.wake)
        self._requests = RequestTable()
        self._stats: dict[str, float | int | str] | None = None
        self._thread = threading.Thread(target=self._work, name="learner-connection", daemon=True)
        self._is_closing = False
        self._standing = Standing(config)
        self._has_moved = False
        self._sockets: ActorSockets | None = None
        self.announcement: Announcement | None = None
        self._heard_s = self._said_s = time.monotonic()

    def start(self) -> None:
        """Begins to connect, in the background."""
        self._source.set_listener(self._syncer.request)
        self._syncer.start()
        self._thread.start()

    def close(self) -> None:
        """Ends the connection; requests under way raise Refused. May be called twice."""
        if self._is_closing:
            return
        self._is_closing = True
        self._source.set_listener(None)
        self._waker.wake()
        if self._thread.ident is not None:
            self._thread.join()
            self._syncer.stop()
        self._requests.fail_all(Refused("The connection to the learner was closed."))
        self._waker.close()

    @property
    def is_connected(self) -> bool:
        """Whether the learner has admitted this actor and gave a sign of life lately."""
        return self._standing.is_welcome and time.monotonic() - self._heard_s < self._config.dead_after_s

    @property
    def last_error(self) -> HiorsError | None:
        """Why the learner does not serve this actor, where somebody said so; None while it does."""
        return self._standing.last_error

    def set_address(self, address: str) -> None:
        """Goes on with the learner at another address."""
        self._address = address
        self._has_moved = True
        self._waker.wake()

    def send_stats(self, values: Mapping[str, float | int | str]) -> None:
        """Replaces the figures that are sent next."""
        self._stats = dict(values)
        self._waker.wake()

    def wait_until_delivered(self, timeout_s: float) -> bool:
        """Waits until the learner has committed everything that was recorded; returns whether it has."""
        return self._delivery.wait_until_done(timeout_s)

    def ask(self, request: Request) -> Future:
        """Sends a request when the learner can be reached; the future ends at the latest at its deadline."""
        future = self._requests.add(request)
        if self._is_closing:
            self._requests.fail_all(Refused("The connection to the learner is closed."))
        elif self._standing.is_fenced and self.last_error is not None:
            self._requests.fail_all(self.last_error)
        if (sockets := self._sockets) is None or request.deadline_s - time.monotonic() < _POLL_S:
            self._waker.wake()  # It has to know of a deadline that comes before it looks again.
        else:
            sockets.do_now(lambda: self._send_requests(sockets))
        return future

    def _work(self) -> None:
        while not self._is_closing:
            try:
                self._connect()
            except (TransportError, SpoolFull) as exc:  # Nobody knows where the learner is; or our own disk is full.
                self._note_error(exc)
                self._pause(STORAGE_RETRY_S)
            except Exception as exc:  # A mistake of ours must not silence a robot: start over.
                logger.exception("The connection to the learner failed; starting over.")
                self._note_error(Refused(f"The connection failed: {exc!r}."))
                self._pause(STORAGE_RETRY_S)

    def _pause(self, duration_s: float) -> None:
        """Waits before the next attempt; requests keep their deadlines."""
        give_up_s = time.monotonic() + duration_s
        while not self._is_closing and time.monotonic() < give_up_s:
            self._requests.expire("the learner cannot be reached.")
            time.sleep(0.05)

    def _connect(self) -> None:
        """Makes sockets and uses them until the learner is silent for too long; resolves its name anew each time."""
        self._has_moved = False
        self._forget_session()
        self._heard_s = time.monotonic()
        host, config = locate(self._address, self._config)
        with ActorSockets(config, host, keys=self._keys, waker=self._waker) as sockets:
            self._sockets = sockets
            try:
                self._use(sockets)
            finally:
                self._sockets = None
        if self._standing.is_welcome and not self._is_closing:
            logger.warning("The learner is silent; connecting to %s again.", self._address)
        self._standing.is_welcome = False

    def _use(self, sockets: ActorSockets) -> None:
        while not self._is_closing and not self._has_moved:
            sockets.wait(max(0.0, min(_POLL_S, self._requests.seconds_left())))
            with sockets.turn:
                self._receive(sockets)
                self._requests.expire("the learner is slow." if self.is_connected else "the learner cannot be reached.")
                self._speak(sockets)
            if time.monotonic() - self._heard_s > self._config.dead_after_s:
                break
        if self._is_closing and self._standing.is_welcome:
            self._say_goodbye(sockets)

    def _say_goodbye(self, sockets: ActorSockets) -> None:
        """Frees the actor id at once; waits for the answer, because closing drops what is not sent."""
        deadline_s = time.monotonic() + _GOODBYE_S
        with sockets.turn:
            if not self._send(sockets, Goodbye()):
                return
        while time.monotonic() < deadline_s:
            with sockets.turn:
                frames = sockets.receive()
            if frames is not None and messages.decode_reply(frames[0]) == Heartbeat():
                return
            if frames is None:
                sockets.wait(0.02)

    def _forget_session(self) -> None:
        self._standing.forget()
        self._requests.send_again()

    def _receive(self, sockets: ActorSockets) -> None:
        for _ in range(_REPLIES_AT_ONCE):
            frames = sockets.receive()
            if frames is None:
                break
            try:
                self._handle(frames)
            except ProtocolError as exc:
                self._note_error(exc)
        while (frames := sockets.receive_broadcast()) is not None:
            try:
                self.announcement = messages.decode_announcement(frames[0])
            except ProtocolError as exc:
                logger.debug("%s", exc)

    def _handle(self, frames: list[bytes]) -> None:
        reply = messages.decode_reply(frames[0])
        self._heard_s = time.monotonic()
        if isinstance(reply, Welcome):
            self._delivery.restart(last_seq=reply.last_seq, num_credits=reply.credits)
            self._standing.note_welcome()
            self.announcement = reply.announcement
        elif isinstance(reply, Ack):
            self._standing.note_ack()
            self._delivery.acknowledge(reply.last_seq)
        elif isinstance(reply, ActReply | FetchReply):
            self._requests.answer(reply, frames[1:])
        elif isinstance(reply, ErrorReply):
            self._take_error(reply)

    def _take_error(self, reply: ErrorReply) -> None:
        if reply.kind == messages.NO_SESSION:
            self._forget_session()
        elif reply.request_id is not None:
            self._requests.fail(reply.request_id, messages.error_of(reply))
        else:
            self._note_error(messages.error_of(reply), kind=reply.kind)

    def _note_error(self, error: HiorsError, *, kind: str = "") -> None:
        self._standing.note_error(error, kind=kind)
        if self._standing.is_fenced:
            self._requests.fail_all(error)
        elif not self._standing.is_welcome:
            self._requests.send_again()

    def _speak(self, sockets: ActorSockets) -> None:
        if self._standing.is_fenced:
            self._heard_s = time.monotonic()
            return
        if not self._standing.is_welcome:
            self._say_hello(sockets)
            return
        self._send_requests(sockets)
        if self._standing.is_held_up:
            self._say_hello(sockets)  # Its answer tells where to go on.
        else:
            self._deliver(sockets)
        if self._stats is not None and self._send(sockets, Stats(self._stats)):
            self._stats = None
        if time.monotonic() - self._said_s > self._config.heartbeat_s:
            self._send(sockets, Heartbeat())

    def _send_requests(self, sockets: ActorSockets) -> None:
        if not self._standing.is_welcome:
            return
        for request_id, request in self._requests.unsent():
            left_ms = max(0.0, 1e3 * (request.deadline_s - time.monotonic()))
            if not self._send(sockets, request.make_header(request_id, left_ms), *request.frames):
                return
            request.is_sent = True

    def _deliver(self, sockets: ActorSockets) -> None:
        while (batch := self._delivery.next_batch(self._syncer.synced_seq)) is not None:
            if not self._send(sockets, batch.header, *batch.events):
                break
            self._delivery.note_sent(batch)
        if self._delivery.is_overdue:
            logger.warning("The learner did not acknowledge in time; asking how far it has come.")
            self._forget_session()

    def _say_hello(self, sockets: ActorSockets) -> None:
        if not self._standing.is_hello_due:
            return
        hello = Hello(
            actor_id=self._actor_id,
            epoch=self._source.epoch,
            spec_digest=self._spec.digest(),
            spec=self._spec,
            spool_id=self._source.spool_id,
            first_seq=self._source.acknowledged_seq,
        )
        if self._send(sockets, hello):
            self._standing.note_hello()

    def _send(self, sockets: ActorSockets, message: messages.Message, *frames: bytes) -> bool:
        is_sent = sockets.send([messages.encode(message), *frames])
        if is_sent:
            self._said_s = time.monotonic()
        return is_sent
