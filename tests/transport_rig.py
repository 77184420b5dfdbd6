"""A learner's network side and an actor's, on real sockets and real disks, small enough to start in a test."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from actor.spool import Spool
from learner.server.gateway import Gateway
from learner.server.ingest import Ingest
from serl_launcher.config.transport import TransportConfig
from serl_launcher.events import (
    EncodedObservation,
    EpisodeEnded,
    EpisodeStarted,
    Event,
    StepRecorded,
    encode_observation,
    encode_vector,
)
from serl_launcher.journal import Journal
from serl_launcher.specs import CameraSpec, RobotSpec
from serl_launcher.transport.client import LearnerClient
from serl_launcher.transport.messages import ActReply, ErrorReply
from serl_launcher.types import Observation, Outcome, Source

SPEC = RobotSpec(
    name="two_joints",
    cameras=(CameraSpec(name="cam", height=16, width=16, encoding="raw"),),
    state_names=("j0", "j1"),
    action_names=("j0", "j1"),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    control_hz=10.0,
)
OTHER_SPEC = msgspec.structs.replace(SPEC, control_hz=20.0)
QUICK = TransportConfig(heartbeat_s=0.2, dead_after_s=1.0, request_timeout_s=1.0, request_port=0, broadcast_port=0)


def observation(value: float = 0.0) -> Observation:
    """Returns an observation whose state tells `value`."""
    image = np.full((16, 16, 3), int(value) % 256, np.uint8)
    return Observation(images={"cam": image}, state=np.full(2, value, np.float32), prompt="reach")


def encoded(value: float = 0.0) -> EncodedObservation:
    """Returns the same observation as it travels."""
    return encode_observation(observation(value), SPEC)


def step(episode_id: str, number: int, *, value: float = 0.0) -> StepRecorded:
    """Returns one step whose state tells `value`."""
    return StepRecorded(
        episode_id=episode_id, step=number, observation=encoded(value), action=encode_vector(np.zeros(2), 2, "action"),
        reward=0.0, terminated=False, truncated=False, source=int(Source.POLICY), policy_version=0, wall_time_s=1.0,
        monotonic_s=1.0,
    )  # fmt: skip


def episode(episode_id: str, num_steps: int, *, outcome: Outcome = Outcome.SUCCESS) -> list[Event]:
    """Returns the events of a whole episode; the states tell the step numbers."""
    return [
        EpisodeStarted(episode_id, "reach", 1.0, 7),
        *(step(episode_id, number, value=number) for number in range(num_steps)),
        EpisodeEnded(episode_id, num_steps, encoded(num_steps), outcome, "environment", 2.0),
    ]


class Echo:
    """Answers each observation with chunks [4, 2] that repeat its state."""

    policy_version = 5

    def __init__(self) -> None:
        self.is_silent = False
        self.error: ErrorReply | None = None

    def submit(self, request_key, observations, deadline_monotonic, reply, unfinished=()) -> None:
        self.unfinished = list(unfinished)
        if self.is_silent:
            return
        if self.error is not None:
            threading.Thread(target=reply, args=(self.error, None)).start()
            return
        states = np.stack([np.frombuffer(each.state, np.float32) for each in observations])
        actions = np.repeat(states[:, None], 4, axis=1)
        threading.Thread(target=reply, args=(ActReply(self.policy_version, 4, 2, {"model": 1.0}), actions)).start()


@dataclasses.dataclass(kw_only=True)
class Learner:
    """A gateway at work."""

    gateway: Gateway
    journal: Journal
    inference: Echo
    config: TransportConfig
    """With the ports as bound."""


@contextlib.contextmanager
def learner(root: Path, config: TransportConfig = QUICK) -> Iterator[Learner]:
    """Serves below `root` until the block ends; a second block continues the first."""
    inference = Echo()
    with contextlib.ExitStack() as stack:
        journal = Journal(root / "journal", durability=config.durability)
        stack.callback(journal.close)
        gateway = Gateway(
            config, spec=None, ingest=Ingest(journal), inference=inference, publications=root / "policies"
        )
        stack.callback(gateway.close)
        gateway.bind()
        stop = threading.Event()
        thread = threading.Thread(target=gateway.run, args=(stop,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        request_port, broadcast_port = gateway.ports
        ported = dataclasses.replace(config, request_port=request_port, broadcast_port=broadcast_port)
        yield Learner(gateway=gateway, journal=journal, inference=inference, config=ported)


@contextlib.contextmanager
def spool(
    root: Path, actor_id: str = "actor-0", *, max_bytes: int = 2**26, when_full: str = "pause"
) -> Iterator[Spool]:
    """Opens the spool of an actor below `root`."""
    opened = Spool(root / "spool" / actor_id, max_bytes=max_bytes, when_full=when_full)
    with contextlib.closing(opened):
        yield opened


@contextlib.contextmanager
def client(
    config: TransportConfig, source: Spool, *, actor_id: str = "actor-0", spec: RobotSpec = SPEC
) -> Iterator[LearnerClient]:
    """Connects to the learner at those ports on this machine."""
    started = LearnerClient(config, "127.0.0.1", actor_id=actor_id, spec=spec, spool=source)
    started.start()
    with contextlib.closing(started):
        yield started


def wait_until(is_true: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Polls; returns whether the condition came true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True
