"""Settings of the network: addresses, limits, deadlines, keys."""

from dataclasses import dataclass

from serl_launcher.errors import ConfigError
from serl_launcher.events import MAX_EVENT_BYTES

DURABILITIES = ("always", "group", "os")


@dataclass(kw_only=True, slots=True)
class TransportConfig:
    """ZeroMQ transport between actors and the learner server."""

    request_port: int = 5588
    """ROUTER of the learner: hello, steps, act, label, stats, fetch."""
    broadcast_port: int = 5589
    """PUB of the learner: policy version, pause, stop."""
    bind: str = "127.0.0.1"
    """Address the learner listens on; anything but loopback needs keys or `insecure`."""
    insecure: bool = False
    """Allow listening beyond loopback without keys. Anybody on that network can then drive the robots."""
    keys_dir: str | None = None
    """Directory with CURVE certificates; see `python -m tools.keys`."""
    heartbeat_s: float = 1.0
    """Both sides say something at least this often."""
    dead_after_s: float = 5.0
    """Silence after which the other side counts as gone."""
    request_timeout_s: float = 5.0
    """Deadline of one request."""
    max_message_bytes: int = MAX_EVENT_BYTES + 1024 * 1024
    """Larger frames are refused by ZeroMQ before they are read; the largest event fits into one, encrypted."""
    max_batch_events: int = 256
    """Events in one `steps` request."""
    max_batch_bytes: int = 8 * 1024 * 1024
    """Bytes of events in one `steps` request."""
    credits: int = 4
    """`steps` requests that may be under way per actor."""
    fetch_chunk_bytes: int = 1024 * 1024
    """Bytes of one piece of a published policy."""
    durability: str = "group"
    """`always`: one fsync per request. `group`: one fsync per group of requests, before any is acknowledged (both
    survive a power cut). `os`: no fsync; survives the death of any process, but a power cut can damage the journal."""
    spool_max_bytes: int = 8 * 1024**3
    """Size of the actor's disk spool."""
    spool_when_full: str = "pause"
    """`pause`: the actor stops before the next episode until there is room. `refuse`: recording raises SpoolFull."""

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise ConfigError(f"transport.durability must be one of {DURABILITIES}, got {self.durability!r}.")
        if self.spool_when_full not in ("pause", "refuse"):
            raise ConfigError(f"transport.spool_when_full must be 'pause' or 'refuse', got {self.spool_when_full!r}.")
        if self.max_message_bytes <= MAX_EVENT_BYTES:
            raise ConfigError(
                f"transport.max_message_bytes must exceed the {MAX_EVENT_BYTES} bytes that one event may have, got "
                f"{self.max_message_bytes}."
            )
        if not 0 < self.max_batch_bytes <= MAX_EVENT_BYTES:
            raise ConfigError(
                f"transport.max_batch_bytes must lie in [1, {MAX_EVENT_BYTES}], got {self.max_batch_bytes}."
            )
        if self.request_port == self.broadcast_port != 0:
            raise ConfigError(f"transport.request_port and broadcast_port must differ, both are {self.request_port}.")
