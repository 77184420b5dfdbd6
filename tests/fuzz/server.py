"""A live learner under damaged messages from strangers and from admitted actors, while a good actor is served."""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from actor.spool import Spool
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import HiorsError
from serl_launcher.publication import Publisher
from serl_launcher.transport import messages
from serl_launcher.transport.client import LearnerClient
from tests.actor.tiny_checkpoint import save_tiny_policy
from tests.chaos.processes import Learner
from tests.fuzz.mutations import POLICY_VERSION, Mutator, hello, valid_requests
from tests.transport_rig import SPEC, episode, observation

EPISODE_STEPS = 20
MAX_GROWN_MB = 200.0
"""Resident memory that the server may take above what it had before the fuzzing."""
_INTACT_CHANCE = 0.02
"""Of a message that is left as it is, so that inference and publications are reached too."""
_NEVER_TRAINING = ("algo.training_starts=1000000000",)
_DRAIN_S, _SILENCE_MS = 30.0, 500
_START_S = 240.0
_REPLIES_AT_ONCE = 100


class TimedSpool(Spool):
    """A spool that measures how long each event waits for its acknowledgement."""

    def __init__(self, path: Path) -> None:
        self.appended_s: dict[int, float] = {}
        self.waits_ms: list[float] = []
        super().__init__(path, max_bytes=2**28)

    def append(self, event: object) -> int:
        self.appended_s[self.last_seq + 1] = time.monotonic()
        return super().append(event)  # pyright: ignore[reportArgumentType]

    def acknowledge(self, seq: int) -> None:
        now_s, first = time.monotonic(), self.acknowledged_seq + 1
        super().acknowledge(seq)
        self.waits_ms += [1e3 * (now_s - self.appended_s.pop(each)) for each in range(first, seq + 1)]


@dataclass
class ServerReport:
    """What the server and the good actor went through."""

    num_messages: int = 0
    num_junk_connections: int = 0
    num_restarts: int = 0
    """Ends of the server process; none may happen."""
    num_steps: int = 0
    num_delivered_steps: int = 0
    calm_p99_ms: float = 0.0
    """Of the good actor's acknowledgements before the fuzzing."""
    p99_ms: float = 0.0
    """The same during the fuzzing."""
    longest_ms: float = 0.0
    calm_mb: float = 0.0
    """Resident memory of the server before, and at its largest during the fuzzing."""
    peak_mb: float = 0.0
    num_actions: int = 0
    """Requests for actions that were answered by some, damaged or not."""
    num_pieces: int = 0
    """Requests for pieces of the policy that were answered by one."""
    wall_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing crashed, hung, grew or was lost, and everything was reached."""
        is_whole = self.num_steps == self.num_delivered_steps and self.num_actions and self.num_pieces
        is_small = self.peak_mb - self.calm_mb < MAX_GROWN_MB
        return bool(is_whole and is_small and not self.problems and not self.num_restarts)


def fuzz_server(directory: Path, num_messages: int, seed: int, *, calm_s: float = 5.0) -> ServerReport:
    """Returns what that many damaged messages did to a learner process."""
    directory.mkdir(parents=True, exist_ok=True)
    report, began_s = ServerReport(), time.monotonic()
    with ExitStack() as stack:
        learner = stack.enter_context(closing(Learner(directory, has_trainer=True, changes=_NEVER_TRAINING)))
        policies = Publisher(learner.run_directory / "policies")
        policies.publish(lambda path: save_tiny_policy(path, SPEC), POLICY_VERSION)
        spool = stack.enter_context(closing(TimedSpool(directory / "spool")))
        config = TransportConfig(request_port=learner.address[1], broadcast_port=learner.address[2])
        good = LearnerClient(config, learner.address[0], actor_id="good", spec=SPEC, spool=spool)
        good.start()
        stack.callback(good.close)
        stop_recording = stack.enter_context(_recording(spool))
        if not _wait(lambda: len(spool.waits_ms) > EPISODE_STEPS, _START_S):
            report.problems.append("the good actor was never served")
            return report
        if not _wait(lambda: _gives_actions(good), _START_S):
            report.problems.append("the policy was never served")
            return report
        spool.waits_ms.clear()  # The first ones waited for the learner to start.
        time.sleep(calm_s)
        pid, calm = learner.server_pid, list(spool.waits_ms)
        assert pid is not None
        report.calm_p99_ms, report.calm_mb = p99(calm), resident_mb(pid)
        _fuzz(learner, report, num_messages, seed, pid)
        under_fire = spool.waits_ms[len(calm) :]
        stop_recording()
        if not good.flush(60):
            report.problems.append(f"{spool.num_pending} events of the good actor were not acknowledged in 60 s")
        report.p99_ms, report.longest_ms = p99(under_fire), max(under_fire, default=0.0)
        report.num_restarts = int(learner.server_pid != pid)
        good.close()
        if learner.stop(120):
            report.problems.append("the learner did not end in good order")
        report.num_steps = sum(1 for _ in (directory / "steps").read_text().splitlines())
    report.num_delivered_steps = _num_sealed(learner.run_directory / "replay_buffer")
    report.wall_s = time.monotonic() - began_s
    return report


def _gives_actions(actor: LearnerClient) -> bool:
    try:
        return bool(actor.act([observation()], timeout_s=2.0))
    except HiorsError:
        return False


@contextmanager
def _recording(spool: Spool) -> Iterator[Callable[[], None]]:
    """Records episodes at 50 steps a second until told to stop; notes each step in the file `steps`."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        with (spool.path.parent / "steps").open("w", buffering=1) as notes:
            while not stop.is_set():
                for event in episode(f"good-{number}", EPISODE_STEPS):
                    spool.append(event)
                    time.sleep(0.02)
                notes.write("step\n" * EPISODE_STEPS)
                number += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def finish() -> None:
        stop.set()
        thread.join()

    try:
        yield finish
    finally:
        finish()


def _fuzz(learner: Learner, report: ServerReport, num_messages: int, seed: int, pid: int) -> None:
    valid, draw = valid_requests(), random.Random(seed)
    mutator = Mutator(valid, seed)
    host, port, _ = learner.address
    context = zmq.Context()
    sockets = [_connect(context, host, port) for _ in range(4)]
    try:
        for number in range(num_messages):
            index = draw.randrange(len(sockets))
            if draw.random() < 0.01:
                sockets[index].close()
                sockets[index] = _connect(context, host, port)
            if draw.random() < 0.05:
                sockets[index].send_multipart([messages.encode(hello(f"fuzz-{index}"))])
            frames = draw.choice(valid) if draw.random() < _INTACT_CHANCE else mutator.draw()
            sockets[index].send_multipart(frames or [b""])
            _count_replies(sockets[index], report)
            if number % 500 == 0:
                _send_junk(host, port, draw)
                report.num_junk_connections += 1
            if number % 200 == 0:
                report.peak_mb = max(report.peak_mb, resident_mb(pid))
            report.num_messages += 1
        _drain(sockets, report)
        if not _answers(context, host, port):
            report.problems.append("the server did not answer a good message after the last damaged one in 60 s")
    finally:
        for each in sockets:
            each.close()
        context.term()


def _connect(context: zmq.Context, host: str, port: int) -> zmq.Socket:
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDTIMEO, 60_000)
    made.connect(f"tcp://{host}:{port}")
    return made


def _drain(sockets: list[zmq.Socket], report: ServerReport) -> None:
    """Counts what is answered after the last message, until nothing comes for a while."""
    give_up_s = time.monotonic() + _DRAIN_S
    while time.monotonic() < give_up_s and any([each.poll(_SILENCE_MS) for each in sockets]):
        for each in sockets:
            _count_replies(each, report)


def _count_replies(source: zmq.Socket, report: ServerReport) -> None:
    for _ in range(_REPLIES_AT_ONCE):
        try:
            reply = messages.decode_reply(source.recv_multipart(zmq.NOBLOCK)[0])
        except zmq.Again:
            return
        report.num_actions += isinstance(reply, messages.ActReply)
        report.num_pieces += isinstance(reply, messages.FetchReply)


def _answers(context: zmq.Context, host: str, port: int) -> bool:
    with closing(_connect(context, host, port)) as asking:
        asking.send(messages.encode(hello("fuzz-last")))
        return bool(asking.poll(60_000))


def _send_junk(host: str, port: int, draw: random.Random) -> None:
    """Says something on the port that is no ZeroMQ at all, or begins like it."""
    greeting = draw.choice([b"", b"\xff" + bytes(8) + b"\x7f\x03\x00NULL", b"GET / HTTP/1.1\r\n\r\n"])
    with socket.create_connection((host, port)) as connection:
        connection.sendall(greeting + draw.randbytes(draw.randint(0, 2000)))


def resident_mb(pid: int) -> float:
    """Returns the resident memory of a process; 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def p99(values: list[float]) -> float:
    """Returns the 99th percentile, 0 of nothing."""
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else 0.0


def _num_sealed(root: Path) -> int:
    import pyarrow.parquet as pq

    tables = [
        pq.ParquetFile(path).read(columns=["actor_id", "length"]) for path in root.glob("meta/episodes/*/*.parquet")
    ]
    return sum(row["length"] for table in tables for row in table.to_pylist() if row["actor_id"] == "good")


def _wait(is_true: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True
