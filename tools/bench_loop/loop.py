"""Plays one long episode by the actor's own rollout and notes when every tick ended."""

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actor.clearance import Clearance
from actor.console import Console
from actor.console.console import token_in
from actor.console.loop_state import LoopState
from actor.console.shown_env import ShownEnv
from actor.intervention import Control
from actor.pacer import Pacer
from actor.progress import Progress
from actor.recorder import Recorder
from actor.rewards import RewardBus
from actor.rollout import Rollout, gate_of
from actor.spool import Spool
from actor.steadiness import steady
from actor.timings import TimingLog
from robot_infra import safety
from serl_launcher.config.actor import ActorConfig
from serl_launcher.config.beside import ConsoleConfig
from serl_launcher.config.root import RunConfig
from serl_launcher.config.transport import TransportConfig
from serl_launcher.run_directory import RunDirectory
from serl_launcher.transport.client import LearnerClient
from tools.bench_loop.robot import BenchRobot, Waver

SPOOL_BYTES = 8 * 1024**3
FLUSH_S = 30.0

Watch = Callable[[str], "contextlib.AbstractContextManager[subprocess.Popen[str]]"]
"""Runs a viewer of the console at an address."""


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
    num_pictures: int
    """What a viewer of the console got."""


def measure(
    hz: float, *, seconds: float, camera_port: int, learner: TransportConfig, directory: Path, watch: Watch,
    is_steady: bool = True,
) -> Jitter:  # fmt: skip
    """Returns the lateness of the ticks at a rate, while everything is recorded, delivered and shown.

    Args:
        hz: Ticks per second.
        seconds: Length of the episode.
        camera_port: Where the cameras are.
        learner: How the learner is reached.
        directory: For spool and logs.
        watch: Runs a viewer of the console.
        is_steady: Whether to use `actor.steadiness`, as actors do.
    """
    robot = BenchRobot(hz, int(seconds * hz), camera_port)
    config = RunConfig(
        output_dir=str(directory), unique_identifier=f"{hz:g}-hz",
        actor=ActorConfig(id=f"bench-{hz:g}-hz", console=ConsoleConfig(enabled=True, port=0)),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(robot.close)
        spool = Spool(directory / "spool", max_bytes=SPOOL_BYTES)
        stack.callback(spool.close)
        client = LearnerClient(learner, "127.0.0.1", actor_id=config.actor.id, spec=robot.spec, spool=spool)
        client.start()
        stack.callback(client.close)
        console = Console.of(config, RewardBus())
        stack.callback(console.close)
        shown = ShownEnv(robot)
        rollout = Rollout(
            env=shown,
            control=Control(policy=None, operator=console.operator(robot.spec, Waver()), execution_horizon=1),
            gate=gate_of(shown, safety.limits_of(robot.spec, [])),
            recorder=Recorder(log=spool, spec=robot.spec, actor_id=config.actor.id),
            progress=Progress.load(directory / "progress.json"), clearance=Clearance(learner=client, room=spool),
            pacer=Pacer(0.0), timings=TimingLog(path=directory / "timings.jsonl"),
        )  # fmt: skip
        state = LoopState(
            rollout=rollout, env=shown, desk=console.desk, spool=spool, connection=client, recovery=console.recovery
        )
        console.serve(rollout.gate, shown, state)
        token = token_in(RunDirectory.of(config).root / f"console-{config.actor.id}.token")
        viewer = stack.enter_context(watch(f"ws://127.0.0.1:{console.port}/live?token={token}"))
        with steady() if is_steady else contextlib.nullcontext():
            rollout.play_episode(lambda: None)
        num_pictures = int(viewer.communicate()[0])
        client.flush(FLUSH_S)
        num_delivered = spool.acknowledged_seq
    late_ms, work_ms = (1e3 * np.asarray(values) for values in (robot.clock.lateness_s, robot.clock.work_s))
    return Jitter(
        hz=hz, num_ticks=robot.clock.num_ticks, median_ms=float(np.median(late_ms)),
        p99_ms=float(np.percentile(late_ms, 99)), worst_ms=float(late_ms.max()), num_late=robot.clock.num_late,
        work_p99_ms=float(np.percentile(work_ms, 99)), num_delivered=num_delivered, num_pictures=num_pictures,
    )  # fmt: skip
