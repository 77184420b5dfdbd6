"""A learner server in this process whose policy drives to where the robot already is, one small step further."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learner.server.backend import InferenceReply
from learner.server.gateway import Gateway
from learner.server.ingest import Ingest
from serl_launcher.config.transport import TransportConfig
from serl_launcher.events import EncodedObservation
from serl_launcher.journal import EpisodeRecord, Journal
from serl_launcher.transport.messages import ActReply


@dataclass
class StandingStill:
    """Answers every request with chunks that repeat the measured state."""

    policy_version: int = 5
    num_requests: int = 0

    def submit(
        self,
        request_key: object,
        observations: Sequence[EncodedObservation],
        deadline_monotonic: float,
        reply: InferenceReply,
        unfinished: Sequence[object] = (),
    ) -> None:
        self.num_requests += 1
        states = np.stack([np.frombuffer(observation.state, "<f4") for observation in observations])
        chunks = np.repeat(states[:, None], 4, axis=1)
        reply(ActReply(self.policy_version, chunks.shape[1], chunks.shape[2]), chunks)


@dataclass
class Learner:
    gateway: Gateway
    journal: Journal
    inference: StandingStill

    def episodes(self) -> list[EpisodeRecord]:
        return [self.journal.read_episode(episode_id) for episode_id in self.journal.closed_episodes()]


@contextlib.contextmanager
def serving(directory: Path, ports: tuple[int, int]) -> Iterator[Learner]:
    """Serves on these ports until the block ends; a second time it goes on with the same journal."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "policies").mkdir(exist_ok=True)
    config = TransportConfig(request_port=ports[0], broadcast_port=ports[1])
    with contextlib.closing(Journal(directory / "journal", durability="os")) as journal:
        inference = StandingStill()
        gateway = Gateway(
            config, spec=None, ingest=Ingest(journal), inference=inference, publications=directory / "policies"
        )
        stop = threading.Event()
        gateway.bind()
        thread = threading.Thread(target=gateway.run, args=(stop,))
        thread.start()
        try:
            yield Learner(gateway, journal, inference)
        finally:
            stop.set()
            thread.join(timeout=10)
