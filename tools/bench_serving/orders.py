"""What the processes of the benchmark are told, as JSON on their standard input."""

import msgspec

HIORS, OPENPI, LOOP, LEROBOT, FLOOR = "hiors", "openpi", "openpi_in_loop", "lerobot", "sockets"
"""Our gateway; our websocket endpoint; the pattern of openpi's server (inference inside the event loop); LeRobot's
asynchronous inference server; the sockets of our gateway alone."""
KINDS = (HIORS, OPENPI, LOOP, LEROBOT, FLOOR)


class ServerOrder(msgspec.Struct, kw_only=True):
    """One server."""

    kind: str
    model_ms: float = 0.0
    """How long a policy call takes, however many observations it has."""
    per_item_ms: float = 0.0
    """And how much longer per observation."""
    encoding: str = "raw"
    """Of the cameras' images on the wire, where the protocol encodes them."""
    keys_dir: str = ""
    """CURVE keys; empty: none."""
    max_batch: int = 16
    max_wait_ms: float = 2.0
    root: str = ""
    """For its journal."""
    request_port: int = 0
    broadcast_port: int = 0
    policies: str = ""
    """Publications to follow instead of the stand-in model."""
    is_sealing: bool = False
    """Whether closed episodes become files of a dataset."""
    switch_interval_ms: float = 0.0
    """How long a thread keeps the interpreter while another waits for it; 0: what the learner's server sets."""
    trains_inside: bool = False
    """Whether training runs in a thread of the server, to show why it should not."""


class ClientOrder(msgspec.Struct, kw_only=True):
    """One actor."""

    kind: str
    actor_id: str
    ports: tuple[int, int]
    encoding: str = "raw"
    keys_dir: str = ""
    root: str
    """For its spool."""
    spec: str = ""
    """File with the robot's spec; empty: the benchmark's robot with three cameras of 224x224."""
    hz: float = 0.0
    """Questions per second; 0: the next as soon as the last is answered."""
    seconds: float
    deadline_ms: float = 5000.0


class ClientResult(msgspec.Struct, kw_only=True):
    """What one actor saw."""

    round_trip_ms: list[float]
    model_ms: list[float]
    num_missed: int
    """Questions without an answer before the deadline, or before the next was due."""
    answered_s: list[float] = []
    """Monotonic times of the answers."""
