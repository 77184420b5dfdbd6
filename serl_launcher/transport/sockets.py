"""The only module that speaks ZeroMQ: sockets with every option set before they bind or connect.

One thread waits for messages and handles them, each time in its `turn`. Another thread that has something to send
leaves it in a queue and calls `do_now`, which has it sent at once where no turn is under way, or wakes the waiting
thread. A hand-over between threads costs more than all else that is done with a message.
"""

import contextlib
import ipaddress
import logging
import select
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import zmq
from zmq.utils import z85

from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ConfigError, TransportError
from serl_launcher.transport.keys import ActorKeys, LearnerKeys
from serl_launcher.transport.messages import Frame, Frames
from serl_launcher.transport.waker import Waker

logger = logging.getLogger(__name__)

_HIGH_WATER_MARK = 1000
_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 2000
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ZAP_DOMAIN = b"hiors"

_VIEWED_BYTES = 64 * 1024
"""Larger frames are handed on as they lie in ZeroMQ's memory, in both directions; smaller ones are copied faster."""


class _Sockets:
    """What both sides share: a context, a poller, and a close that never waits."""

    def __init__(self, waker: Waker) -> None:
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket] = []
        self._listening: list[zmq.Socket] = []
        self._waker = waker
        self._is_closed = False
        self._poller = select.poll()
        self._poller.register(waker.fileno(), select.POLLIN)
        self.turn = threading.Lock()
        """Held by the thread that uses the sockets, for as long as it does."""

    def __enter__(self) -> Self:
        """Returns itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, timeout_s: float) -> None:
        """Returns when a message or a wake-up is there, at the latest after the timeout. Not to be called in a turn."""
        with self.turn:
            if self._has_input():  # The descriptors tell of what is new only, not of what is left.
                return
        ready = self._poller.poll(max(0, int(1e3 * timeout_s)))
        if any(descriptor == self._waker.fileno() for descriptor, _ in ready):
            self._waker.drain()

    def do_now(self, work: Callable[[], None]) -> None:
        """Does `work`, which uses these sockets, in a turn of the calling thread; never blocks.

        Where another turn is under way, or after the end, it wakes the waiting thread instead, which does what is left
        in its queues at each turn.
        """
        if self.turn.acquire(blocking=False):
            try:
                if not self._is_closed:
                    work()
                    if not self._has_input():
                        return
            finally:
                self.turn.release()
        self._waker.wake()

    def close(self) -> None:
        """Drops what is not sent and frees everything. Not to be called in a turn."""
        with self.turn:
            self._is_closed = True
            for each in self._sockets:
                each.close(linger=0)
            self._context.term()

    def _has_input(self) -> bool:
        """Whether a message has come. What was sent or received last may have swallowed the sign of it."""
        return any(int(each.getsockopt(zmq.EVENTS)) & zmq.POLLIN for each in self._listening)

    def _socket(self, kind: int, config: TransportConfig) -> zmq.Socket:
        created = self._context.socket(kind)
        self._sockets.append(created)
        created.setsockopt(zmq.LINGER, 0)
        created.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
        created.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
        created.setsockopt(zmq.MAXMSGSIZE, config.max_message_bytes)
        created.setsockopt(zmq.HEARTBEAT_IVL, int(1e3 * config.heartbeat_s))
        created.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(1e3 * config.dead_after_s))
        created.setsockopt(zmq.HEARTBEAT_TTL, int(1e3 * config.dead_after_s))
        created.setsockopt(zmq.TCP_KEEPALIVE, 1)
        return created

    def _listen(self, created: zmq.Socket) -> None:
        self._listening.append(created)
        self._poller.register(int(created.getsockopt(zmq.FD)), select.POLLIN)


class ActorSockets(_Sockets):
    """DEALER and SUB of an actor. Connects in the background, again and again, resolving the name each time."""

    def __init__(self, config: TransportConfig, address: str, *, keys: ActorKeys | None, waker: Waker) -> None:
        """Starts to connect to the learner at `address` (host name, IPv4 or IPv6 address)."""
        super().__init__(waker)
        self._requests = self._connected(zmq.DEALER, config, _url(address, config.request_port), keys)
        self._broadcasts = self._connected(zmq.SUB, config, _url(address, config.broadcast_port), keys)

    def send(self, frames: Sequence[Frame]) -> bool:
        """Hands a message over; False where there is no connection, or it is full. Never blocks."""
        try:
            self._requests.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """Returns the next message, None where there is none."""
        return _received(self._requests)

    def receive_broadcast(self) -> list[bytes] | None:
        """Returns the next announcement, None where there is none."""
        return _received(self._broadcasts)

    def _connected(self, kind: int, config: TransportConfig, url: str, keys: ActorKeys | None) -> zmq.Socket:
        created = self._socket(kind, config)
        created.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        created.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        created.setsockopt(zmq.CONNECT_TIMEOUT, int(1e3 * config.request_timeout_s))
        created.setsockopt(zmq.IPV6, int(":" in url.removeprefix("tcp://").rpartition(":")[0]))
        if kind == zmq.DEALER:
            created.setsockopt(zmq.IMMEDIATE, 1)  # Queue nothing for a connection that does not stand.
        else:
            created.setsockopt(zmq.SUBSCRIBE, b"")
        if keys is not None:
            created.setsockopt(zmq.CURVE_SERVERKEY, keys.learner_public)
            created.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            created.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        created.connect(url)
        self._listen(created)
        return created


class LearnerSockets(_Sockets):
    """ROUTER and PUB of the learner, and the answer to who may connect."""

    def __init__(
        self, config: TransportConfig, *, keys: LearnerKeys | None, is_allowed: Callable[[bytes], bool], waker: Waker
    ) -> None:
        """Binds both ports; port 0 takes a free one.

        Args:
            config: Addresses and limits.
            keys: CURVE keys of the learner; None speaks in the clear.
            is_allowed: Says for a public key (40 bytes of Z85) whether its robot may connect. Asked at each connection.
            waker: Wakes `wait`.

        Raises:
            ConfigError: Without keys, an address beyond loopback was asked for and `insecure` is off.
            TransportError: A port is in use, or the address is not of this machine.
        """
        check_exposure(config, has_keys=keys is not None)
        super().__init__(waker)
        self._is_allowed = is_allowed
        self._zap: zmq.Socket | None = None
        try:
            if keys is not None:  # Must listen before the first connection can come.
                self._zap = self._socket(zmq.REP, config)
                self._zap.bind(_ZAP_ADDRESS)
                self._listen(self._zap)
            self._requests = self._bound(zmq.ROUTER, config, config.request_port, keys)
            self._broadcasts = self._bound(zmq.PUB, config, config.broadcast_port, keys)
        except zmq.ZMQError as exc:
            self.close()
            raise TransportError(
                f"Expected to listen on {config.bind} ports {config.request_port} and {config.broadcast_port}: {exc}. "
                "Another learner may run; stop it, or choose other transport.request_port and broadcast_port."
            ) from exc
        self._listen(self._requests)

    @property
    def ports(self) -> tuple[int, int]:
        """Ports of requests and broadcasts, as bound."""
        return _port_of(self._requests), _port_of(self._broadcasts)

    def receive(self) -> tuple[bytes, str, Frames] | None:
        """Returns the next message as (connection, public key or empty, frames), None where there is none.

        Large frames are views of what came: nothing is copied.
        """
        try:
            connection, *frames = self._requests.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        key = ""
        if self._zap is not None and frames:
            with contextlib.suppress(zmq.ZMQError):
                key = str(frames[0].get("User-Id"))
        return connection.bytes, key, [_content(frame) for frame in frames]

    def send(self, connection: bytes, frames: Sequence[bytes]) -> None:
        """Answers a connection; what is gone or does not read is not waited for: it will ask again."""
        with contextlib.suppress(zmq.Again):
            self._requests.send_multipart([connection, *frames], zmq.NOBLOCK)

    def broadcast(self, frame: bytes) -> None:
        """Tells every actor that is connected."""
        with contextlib.suppress(zmq.Again):
            self._broadcasts.send(frame, zmq.NOBLOCK)

    def authenticate(self) -> None:
        """Answers the connections that ask to come in (RFC 27)."""
        while self._zap is not None and (frames := _received(self._zap)) is not None:
            request_id, key = (frames[1], frames[6]) if len(frames) == 7 else (b"", b"")
            public = z85.encode(key) if len(key) == 32 else b""
            is_allowed = bool(public) and self._is_allowed(public)
            status = (b"200", b"OK", public) if is_allowed else (b"400", b"this key is not in the allow-list", b"")
            self._zap.send_multipart([b"1.0", request_id, *status, b""])

    def _bound(self, kind: int, config: TransportConfig, port: int, keys: LearnerKeys | None) -> zmq.Socket:
        created = self._socket(kind, config)
        created.setsockopt(zmq.IPV6, int(":" in config.bind))
        if keys is not None:
            created.setsockopt(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
            created.setsockopt(zmq.CURVE_SERVER, 1)
            created.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            created.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        created.bind(_url("*" if config.bind in ("", "*") else config.bind, port or "*"))
        return created


def make_key_pair() -> tuple[bytes, bytes]:
    """Returns a new CURVE key pair (public, secret), 40 bytes of Z85 each."""
    return zmq.curve_keypair()


def check_exposure(config: TransportConfig, *, has_keys: bool) -> None:
    """Raises ConfigError where anybody on the network could reach an unprotected learner unasked."""
    if has_keys or _is_loopback(config.bind):
        return
    if not config.insecure:
        raise ConfigError(
            f"transport.bind={config.bind!r} is reachable from other machines, but there are no keys. Make them with "
            "`python -m tools.keys init` and set transport.keys_dir, or bind to 127.0.0.1, or accept that anybody on "
            "that network can drive the robots with transport.insecure=true."
        )
    logger.warning("INSECURE: listening on %s without keys; anybody on that network can drive the robots.", config.bind)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def _url(address: str, port: int | str) -> str:
    host = f"[{address}]" if ":" in address and not address.startswith("[") else address
    return f"tcp://{host}:{port}"


def _port_of(bound: zmq.Socket) -> int:
    return int(bound.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0").rpartition(":")[2])


def _content(frame: zmq.Frame) -> Frame:
    return frame.bytes if len(frame) < _VIEWED_BYTES else frame.buffer


def _received(source: zmq.Socket) -> list[bytes] | None:
    try:
        return source.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
