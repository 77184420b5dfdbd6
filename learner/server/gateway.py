"""The learner's side of the network: admits actors, passes on what they ask, and answers.

One thread owns the sockets. Commits and inference happen in other threads, so that nothing here waits for a disk or a
model; their answers are sent by the thread that has them where the sockets are free, else by the owner.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from learner.server.access import Access
from learner.server.act_requests import ActRequests
from learner.server.announcer import Announcer
from learner.server.backend import InferenceBackend
from learner.server.committer import Committer
from learner.server.ingest import Committed, Ingest, StepBatch
from learner.server.publications import Publications
from learner.server.refusals import Complaints, reply_of
from learner.server.sessions import Session, Sessions
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import HiorsError, ProtocolError, Refused, SessionFenced
from serl_launcher.events import MAX_EVENT_BYTES
from serl_launcher.specs import RobotSpec
from serl_launcher.status import JSON
from serl_launcher.transport import messages
from serl_launcher.transport.messages import Act, ErrorReply, Fetch, Frames, Heartbeat, Hello, Stats, Steps
from serl_launcher.transport.sockets import LearnerSockets
from serl_launcher.transport.waker import Waker

logger = logging.getLogger(__name__)

_MESSAGES_AT_ONCE = 256
_POLL_S = 0.1


class Gateway:
    """Serves any number of actors."""

    def __init__(
        self,
        config: TransportConfig,
        *,
        spec: RobotSpec | None,
        ingest: Ingest,
        inference: InferenceBackend,
        publications: Path,
    ) -> None:
        """Prepares to serve; `bind` or `run` opens the ports.

        Args:
            config: Addresses, limits, keys.
            spec: Robot of this run; None takes the one of the journal, or of the first actor that ever comes.
            ingest: Takes recorded events.
            inference: Answers action requests.
            publications: Directory of published policies.

        Raises:
            SpecMismatch: The journal holds another robot than `spec`.
        """
        if spec is not None:
            ingest.require_spec(spec, who="the configuration")
        self._config = config
        self._ingest = ingest
        self._inference = inference
        self._publications = Publications(publications)
        self._sessions = Sessions(config)
        self._act_requests = ActRequests(inference, post=self._post, send=self._send)
        self._committer = Committer(ingest, is_grouped=ingest.is_grouped)
        self._announcer = Announcer(
            self._publications,
            heartbeat_s=config.heartbeat_s,
            is_storage_broken=lambda: bool(self._committer.storage_error),
        )
        self._outbox: deque[Callable[[], None]] = deque()
        self._waker = Waker()
        self._sockets: LearnerSockets | None = None
        self._access = Access(Path(config.keys_dir) if config.keys_dir else None)
        self._complaints = Complaints()

    @property
    def ports(self) -> tuple[int, int]:
        """Ports of requests and broadcasts, once bound."""
        return self._bound.ports

    def figures(self) -> dict[str, JSON]:
        """Returns what was refused, and why the journal cannot be written (empty while it can). From any thread."""
        return {"num_malformed": self._complaints.num_malformed, "storage_error": self._committer.storage_error}

    def bind(self) -> None:
        """Opens the ports; `run` serves them.

        Raises:
            ConfigError: The address is reachable by others, and there are neither keys nor `insecure`.
            TransportError: A port is in use.
        """
        keys, is_allowed = self._access.read_keys(), self._access.may_connect
        self._sockets = LearnerSockets(self._config, keys=keys, is_allowed=is_allowed, waker=self._waker)
        logger.info("Listening on %s, ports %d and %d.", self._config.bind, *self._sockets.ports)

    def announce(self, *, paused: bool | None = None, stop: bool | None = None) -> None:
        """Tells all actors from now on to pause between episodes, or to end. May be called from any thread."""
        self._announcer.set(paused=paused, stop=stop)
        self._waker.wake()

    def snapshot(self) -> dict[str, dict[str, JSON]]:
        """Returns for each actor ever seen its state and newest figures. May be called from any thread."""
        newest, now = self._sessions.newest(), time.monotonic()
        found: dict[str, dict[str, JSON]] = {}
        for actor_id, cursor in self._ingest.cursors().items():
            session = newest.get(actor_id)
            found[actor_id] = dict(session.stats) if session else {}
            found[actor_id] |= {
                "last_seen_s": round(now - session.seen_s, 3) if session else None,
                "is_connected": session is not None and self._sessions.is_alive(session),
                "steps": cursor.num_steps,
                "episodes": cursor.num_episodes,
            }
        return found

    def run(self, stop: threading.Event) -> None:
        """Serves until `stop` is set; what was received is committed before it returns.

        Raises:
            HiorsError: The journal cannot be written any more; start the process again.
        """
        if self._sockets is None:
            self.bind()
        self._committer.start()
        try:
            while not stop.is_set():
                self._bound.wait(_POLL_S)
                with self._bound.turn:
                    self._work()
        finally:
            self._committer.stop()
            with self._bound.turn:
                self._send_answers()
            self.close()

    def close(self) -> None:
        """Frees the ports; `run` does it at its end. May be called twice."""
        if self._sockets is not None:
            self._sockets.close()
        self._waker.close()

    @property
    def _bound(self) -> LearnerSockets:
        assert self._sockets is not None, "bind comes first"
        return self._sockets

    def _work(self) -> None:
        if self._committer.failure is not None:
            raise HiorsError(f"The journal cannot be written any more: {self._committer.failure}.")
        self._bound.authenticate()
        for _ in range(_MESSAGES_AT_ONCE):
            received = self._bound.receive()
            if received is None:
                break
            self._handle(*received)
        else:
            self._waker.wake()
        self._send_answers()
        self._sessions.forget_dead()
        announcement = self._announcer.due()
        if announcement is not None:
            self._bound.broadcast(messages.encode(announcement))

    def _send_answers(self) -> None:
        while self._outbox:
            self._outbox.popleft()()

    def _post(self, answer: Callable[[], None]) -> None:
        """Has `answer` called in a turn of the sockets."""
        self._outbox.append(answer)
        self._bound.do_now(self._send_answers)

    def _handle(self, connection: bytes, key: str, frames: Frames) -> None:
        """Answers one message, whatever it is; nothing in it ends the loop."""
        request_id = None
        try:
            request = messages.decode_request(bytes(frames[0]) if frames else b"")
            request_id = request.request_id if isinstance(request, Act | Fetch) else None
            session = self._checked_session(connection, key, request)
            if isinstance(request, Hello):
                self._admit(connection, request)
                return
            if session is None:
                self._send(connection, ErrorReply(messages.NO_SESSION, "Expected a hello first.", request_id))
                return
            self._answer(session, request, frames[1:])
        except HiorsError as exc:
            if isinstance(exc, ProtocolError):
                self._complaints.note(exc)
            self._refuse(connection, exc, request_id=request_id)
        except Exception as exc:  # A mistake of ours in one message must not take all robots down.
            logger.exception("A message could not be handled.")
            self._refuse(connection, Refused(f"The learner failed on this message: {exc!r}."), request_id=request_id)

    def _checked_session(self, connection: bytes, key: str, request: messages.Request) -> Session | None:
        session = self._sessions.find(connection)
        claimed = request if isinstance(request, Hello) else session
        try:
            self._access.check(key, actor_id=claimed and claimed.actor_id)
        except Refused:
            self._sessions.close(connection)
            raise
        return session

    def _admit(self, connection: bytes, hello: Hello) -> None:
        """Asks the journal; what the actor sent before is committed by the time it answers."""
        if self._sessions.begin(connection, hello):
            self._committer.submit(
                hello, lambda committed: self._post(partial(self._welcome, connection, hello, committed))
            )

    def _welcome(self, connection: bytes, hello: Hello, committed: Committed) -> None:
        self._sessions.end(connection)
        if committed.error is not None:
            self._refuse(connection, committed.error)
            return
        former = self._sessions.open(connection, hello)
        last_seq = committed.last_seq
        if former is None or former.epoch != hello.epoch:
            logger.info("Actor %r is connected (session %d, event %d).", hello.actor_id, hello.epoch, last_seq)
        if former is not None and former.epoch != hello.epoch:
            self._refuse(former.connection, SessionFenced(f"Session {hello.epoch} of {hello.actor_id!r} took over."))
        announcement = self._announcer.current()
        welcome = messages.Welcome(last_seq, self._config.credits, self._inference.policy_version, announcement)
        self._send(connection, welcome)

    def _answer(self, session: Session, request: messages.Request, frames: Frames) -> None:
        if isinstance(request, Steps):
            self._take_steps(session, request, frames)
        elif isinstance(request, Act):
            assert self._ingest.spec is not None, "the session has told its robot"
            self._act_requests.ask(session, request, frames, action_dim=self._ingest.spec.action_dim)
        elif isinstance(request, Stats):
            session.stats = request.values
        elif isinstance(request, Fetch):
            reply, piece = self._publications.read(request)
            self._send(session.connection, reply, piece)
        else:
            if isinstance(request, messages.Goodbye):
                logger.info("Actor %r has ended.", session.actor_id)
                self._sessions.close(session.connection)
            self._send(session.connection, Heartbeat())

    def _take_steps(self, session: Session, request: Steps, frames: Frames) -> None:
        if request.count != len(frames):
            raise ProtocolError(f"Expected {request.count} frames, one per event, got {len(frames)}.")
        num_bytes = sum(map(len, frames))
        if num_bytes > MAX_EVENT_BYTES:
            raise ProtocolError(f"Expected events of at most {MAX_EVENT_BYTES} bytes in a request, got {num_bytes}.")
        load = session.load
        if load.num_steps_requests >= self._config.credits:
            raise Refused(f"Expected at most {self._config.credits} unanswered steps requests, got one more.")
        load.num_steps_requests += 1
        batch = StepBatch(
            actor_id=session.actor_id, epoch=session.epoch, spool_id=session.spool_id,
            first_seq=request.first_seq, events=frames,
        )  # fmt: skip
        self._committer.submit(batch, lambda committed: self._post(partial(self._acknowledge, session, committed)))

    def _acknowledge(self, session: Session, committed: Committed) -> None:
        session.load.num_steps_requests -= 1
        if committed.error is None:
            self._send(session.connection, messages.Ack(committed.last_seq))
            return
        if isinstance(committed.error, SessionFenced):
            self._sessions.close(session.connection)
        elif isinstance(committed.error, ProtocolError):
            self._complaints.note(committed.error)
        self._refuse(session.connection, committed.error)

    def _refuse(self, connection: bytes, error: HiorsError, *, request_id: int | None = None) -> None:
        self._send(connection, reply_of(error, request_id=request_id))

    def _send(self, connection: bytes, message: messages.Message, *frames: bytes) -> None:
        self._bound.send(connection, [messages.encode(message), *frames])
