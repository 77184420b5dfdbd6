"""Which connection speaks for which actor."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from learner.server.refusals import IdInUse
from serl_launcher.config.transport import TransportConfig
from serl_launcher.transport.messages import Hello


@dataclass(kw_only=True, slots=True)
class Load:
    """Requests of one actor that are not answered yet. Another hello does not empty it: they are still in memory."""

    num_steps_requests: int = 0
    num_act_requests: int = 0
    num_act_bytes: int = 0
    """Of the observations in its act requests."""


@dataclass(kw_only=True, slots=True)
class Session:
    """One connection that said hello."""

    connection: bytes
    actor_id: str
    epoch: int
    spool_id: str
    seen_s: float
    """Monotonic time of its last message."""
    load: Load = field(default_factory=Load)
    stats: Mapping[str, float | int | str] = field(default_factory=dict)
    """Newest figures that the actor sent."""


class Sessions:
    """At most one session per actor id. Changed by the gateway's thread, read by any."""

    def __init__(self, config: TransportConfig) -> None:
        self._dead_after_s = config.dead_after_s
        self._by_connection: dict[bytes, Session] = {}
        self._by_actor: dict[str, Session] = {}
        self._admitting: dict[bytes, Hello] = {}
        self._lock = threading.Lock()

    def find(self, connection: bytes) -> Session | None:
        """Returns the session of a connection, and notes that it lives; None where it has not said hello."""
        session = self._by_connection.get(connection)
        if session is not None:
            session.seen_s = time.monotonic()
        return session

    def begin(self, connection: bytes, hello: Hello) -> bool:
        """Notes that an actor is being admitted; returns False where that connection waits for an answer already.

        Raises:
            IdInUse: Another robot lives under that id, or is being admitted.
        """
        if connection in self._admitting:
            return False
        holder = self._by_actor.get(hello.actor_id)
        spools = {each.spool_id for each in self._admitting.values() if each.actor_id == hello.actor_id}
        if holder is not None and self.is_alive(holder):
            spools.add(holder.spool_id)
        if spools - {hello.spool_id}:
            raise IdInUse(
                f"Another actor with the id {hello.actor_id!r} is connected. Give each robot its own actor.id; "
                f"after {self._dead_after_s:g} s without a sign of life the id is free."
            )
        self._admitting[connection] = hello
        return True

    def end(self, connection: bytes) -> None:
        """Notes that the journal has answered a hello."""
        self._admitting.pop(connection, None)

    def open(self, connection: bytes, hello: Hello) -> Session | None:
        """Makes the session of an admitted actor; returns the one that it replaces on another connection."""
        session = Session(
            connection=connection,
            actor_id=hello.actor_id,
            epoch=hello.epoch,
            spool_id=hello.spool_id,
            seen_s=time.monotonic(),
        )
        with self._lock:
            former = self._by_actor.get(hello.actor_id)
            if former is not None:
                self._by_connection.pop(former.connection, None)
                session.stats, session.load = former.stats, former.load
            stale = self._by_connection.pop(connection, None)  # The connection spoke for another id before.
            if stale is not None:
                session.load = stale.load
                self._by_actor.pop(stale.actor_id, None)
            self._by_connection[connection] = session
            self._by_actor[hello.actor_id] = session
        return former if former is not None and former.connection != connection else None

    def close(self, connection: bytes) -> None:
        """Forgets a connection; its actor stays known until another session takes its place."""
        with self._lock:
            self._by_connection.pop(connection, None)

    def is_alive(self, session: Session) -> bool:
        """Returns whether the actor gave a sign of life lately."""
        return session.connection in self._by_connection and time.monotonic() - session.seen_s < self._dead_after_s

    def forget_dead(self) -> None:
        """Closes the sessions that were silent for long; one that comes back says hello again."""
        for session in list(self._by_connection.values()):
            if not self.is_alive(session):
                self.close(session.connection)

    def newest(self) -> dict[str, Session]:
        """Returns the last session of each actor since the start."""
        with self._lock:
            return dict(self._by_actor)
