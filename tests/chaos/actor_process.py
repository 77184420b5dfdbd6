"""An actor with the real loop, recorder, spool and client, around a robot that only counts: `DIRECTORY ID RATE_HZ`."""

import contextlib
import itertools
import json
import logging
import os
import random
import sys
from pathlib import Path

from actor.__main__ import stop_on_signals
from actor.clearance import Clearance
from actor.intervention import Control
from actor.pacer import Pacer
from actor.progress import EpisodeSummary, Progress
from actor.recorder import Recorder
from actor.rollout import Rollout, gate_of
from actor.spool import Spool
from robot_infra import safety
from serl_launcher.config.loader import run_main
from serl_launcher.config.transport import TransportConfig
from serl_launcher.events import Event
from serl_launcher.transport.client import LearnerClient
from serl_launcher.types import Outcome
from tests.chaos.history import note_of
from tests.chaos.robot import SPEC, NumberedRobot, Person

HEARTBEAT_S, DEAD_AFTER_S, REQUEST_TIMEOUT_S = 0.5, 2.5, 2.0
FLUSH_S = 120.0
LABEL_CHANCE = 0.3
FINISH = "finish"
"""Name of the file whose presence tells actors that start to deliver what they have and end."""

logger = logging.getLogger(__name__)


def note(line: str) -> None:
    """Tells the harness one line; one write, so that threads do not mix."""
    os.write(1, f"{line}\n".encode())


class NotedSpool(Spool):
    """A spool that says what it is about to take and what it has taken."""

    def append(self, event: Event) -> int:
        note(f"T {self.last_seq + 1} {json.dumps(note_of(event))}")
        seq = super().append(event)
        note(f"A {seq}")
        return seq

    def acknowledge(self, seq: int) -> None:
        super().acknowledge(seq)
        note(f"K {seq}")


class LateJudge:
    """Changes its mind about earlier episodes now and then."""

    def __init__(self, recorder: Recorder, actor_id: str) -> None:
        self._recorder = recorder
        self._prefix = f"{actor_id}-{recorder.log.epoch}"
        self._finished: list[str] = []
        self._draw = random.Random(recorder.log.epoch)

    def after_episode(self, episode: EpisodeSummary) -> None:
        if episode.num_steps:
            self._finished.append(f"{self._prefix}-{episode.number}")
        if self._finished and self._draw.random() < LABEL_CHANCE:
            outcome = self._draw.choice([Outcome.SUCCESS, Outcome.FAILURE])
            self._recorder.label(self._draw.choice(self._finished[-5:]), outcome, "human")


def main() -> None:
    directory, actor_id, rate_hz = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    config = TransportConfig(
        heartbeat_s=HEARTBEAT_S, dead_after_s=DEAD_AFTER_S, request_timeout_s=REQUEST_TIMEOUT_S,
        max_batch_events=32,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        spool = NotedSpool(directory / "spool" / actor_id, max_bytes=2**28)
        stack.callback(spool.close)
        note(f"S {spool.epoch} {spool.last_seq} {spool.acknowledged_seq}")
        address = f"file:{directory / f'{actor_id}.address'}"
        client = LearnerClient(config, address, actor_id=actor_id, spec=SPEC, spool=spool)
        client.start()
        stack.callback(client.close)
        play(directory, actor_id, rate_hz, client, spool)
        client.flush(FLUSH_S)
        note(f"E {spool.last_seq} {spool.num_pending}")


def play(directory: Path, actor_id: str, rate_hz: float, client: LearnerClient, spool: Spool) -> None:
    """Records until a signal asks to stop."""
    clearance = Clearance(learner=client, room=spool)
    stop_on_signals(clearance.request_stop)
    if (directory / FINISH).exists():
        clearance.request_stop()
    robot = NumberedRobot(itertools.count(spool.last_seq + 1))
    rollout = Rollout(
        env=robot,
        control=Control(policy=None, operator=Person(), execution_horizon=1),
        gate=gate_of(robot, safety.limits_of(SPEC, [])),
        recorder=Recorder(log=spool, spec=SPEC, actor_id=actor_id),
        progress=Progress.load(directory / f"{actor_id}.progress.json"),
        clearance=clearance,
        pacer=Pacer(1 / rate_hz),
    )
    rollout.recorder.close_abandoned()
    judge = LateJudge(rollout.recorder, actor_id)
    rollout.run(num_episodes=0, after_episode=judge.after_episode, on_tick=lambda: None)


if __name__ == "__main__":
    run_main(main)
