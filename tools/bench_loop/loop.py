"""Plays one long episode by the actor's own rollout and notes when every tick ended."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actor.clearance import Clearance
from actor.intervention import Control
from actor.pacer import Pacer
from actor.progress import Progress
from actor.recorder import Recorder
from actor.rollout import Rollout
from actor.spool import Spool
from actor.steadiness import steady
from actor.timings import TimingLog
from robot_infra import safety
from serl_launcher.config.transport import TransportConfig
from serl_launcher.transport.client import LearnerClient
from tools.bench_loop.robot import BenchRobot, Waver

SPOOL_BYTES = 8 * 1024**3
FLUSH_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    """How late ticks ended at one rate, in milliseconds."""

    hz: float
    num_ticks: int
    median_ms: float
    p99_ms: float
    worst_ms: float
    num_late: int
    """Ticks whose work took longer than the tick."""
    work_p99_ms: float
    """Time from the end of a tick until the next command is decided and everything is recorded, 99 %."""
    num_delivered: int
    """Events that the learner has confirmed."""


def measure(
    hz: float, *, seconds: float, camera_port: int, learner: TransportConfig, directory: Path, is_steady: bool = True
) -> Jitter:
    """Returns the lateness of the ticks at a rate, while everything is recorded and delivered."""
    robot = BenchRobot(hz, int(seconds * hz), camera_port)
    with contextlib.ExitStack() as stack:
        stack.callback(robot.close)
        spool = Spool(directory / "spool", max_bytes=SPOOL_BYTES)
        stack.callback(spool.close)
        client = LearnerClient(learner, "127.0.0.1", actor_id=f"bench-{hz:g}-hz", spec=robot.spec, spool=spool)
        client.start()
        stack.callback(client.close)
        timings = TimingLog(path=directory / "timings.jsonl")
        rollout = Rollout(
            env=robot, control=Control(policy=None, operator=Waver(), execution_horizon=1),
            limits=safety.limits_of(robot.spec, []), recorder=Recorder(log=spool, spec=robot.spec, actor_id="bench"),
            progress=Progress.load(directory / "progress.json"), clearance=Clearance(learner=client, room=spool),
            pacer=Pacer(0.0), timings=timings,
        )  # fmt: skip
        with steady() if is_steady else contextlib.nullcontext():
            rollout.play_episode(lambda: None)
        client.flush(FLUSH_S)
        num_delivered = spool.acknowledged_seq
    late_ms = 1e3 * np.asarray(robot.clock.lateness_s)
    work_ms = np.asarray(robot.clock.work_s) * 1e3
    return Jitter(
        hz=hz, num_ticks=robot.clock.num_ticks, median_ms=float(np.median(late_ms)),
        p99_ms=float(np.percentile(late_ms, 99)), worst_ms=float(late_ms.max()), num_late=robot.clock.num_late,
        work_p99_ms=float(np.percentile(work_ms, 99)), num_delivered=num_delivered,
    )  # fmt: skip
