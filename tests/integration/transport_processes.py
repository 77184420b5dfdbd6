"""A learner's network side and a recording actor as processes of their own, to be killed: `serve` and `record`."""

import contextlib
import dataclasses
import itertools
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from actor.spool import Spool
from learner.server.gateway import Gateway
from learner.server.ingest import Ingest
from serl_launcher.events import EpisodeEnded, EpisodeStarted
from serl_launcher.journal import Journal
from serl_launcher.transport.client import LearnerClient
from serl_launcher.types import Outcome
from tests.transport_rig import QUICK, SPEC, Echo, encoded, step

EPISODE_STEPS = 40


def serve(root: Path, request_port: int, broadcast_port: int, limit_bytes: int) -> None:
    """Serves until it is killed; with a limit, no file may grow beyond it until SIGUSR1 comes, as on a full disk."""
    if limit_bytes:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
        signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))
    config = dataclasses.replace(QUICK, request_port=request_port, broadcast_port=broadcast_port)
    ingest = Ingest(Journal(root / "journal"))
    gateway = Gateway(config, spec=None, ingest=ingest, inference=Echo(), publications=root / "policies")
    gateway.run(threading.Event())


def record(root: Path, request_port: int, broadcast_port: int) -> None:
    """Records numbered steps until it is killed; notes in `history` each step that the spool has taken."""
    config = dataclasses.replace(QUICK, request_port=request_port, broadcast_port=broadcast_port)
    history = root / "history"
    first = 1 + max((int(line) for line in history.read_text().split()), default=0) if history.exists() else 1
    numbers = itertools.count(first + 1000)  # Far from what was stored last, but not noted any more.
    spool = Spool(root / "spool", max_bytes=2**30)
    for episode_id, num_steps in spool.open_episodes():
        spool.append(EpisodeEnded(episode_id, num_steps, encoded(), Outcome.ABORTED, "", 0.0))
    client = LearnerClient(config, "127.0.0.1", actor_id="actor-0", spec=SPEC, spool=spool)
    client.start()
    with contextlib.closing(client), history.open("a", buffering=1) as notes:
        for number in itertools.count():
            episode_id = f"actor-0-{spool.epoch}-{number}"
            spool.append(EpisodeStarted(episode_id, "reach", 0.0))
            for each in range(EPISODE_STEPS):
                serial = next(numbers)
                spool.append(msgspec.structs.replace(step(episode_id, each), reward=float(serial)))
                notes.write(f"{serial}\n")
                time.sleep(0.0005)
            spool.append(EpisodeEnded(episode_id, EPISODE_STEPS, encoded(), Outcome.SUCCESS, "environment", 0.0))


if __name__ == "__main__":
    command, directory, *numbers_given = sys.argv[1:]
    {"serve": serve, "record": record}[command](Path(directory), *map(int, numbers_given))
