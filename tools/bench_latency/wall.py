"""Latency on the wall clock: a learner server in a process of its own, its answers held back on their way to a robot.

Says whether a robot starves in reality, with sockets, batches and a policy that takes its time.
"""

import contextlib
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from actor.latency import LatencyEstimate
from actor.pacer import Pacer
from actor.policy_client import ActionService, RemotePolicy
from actor.realtime_plan import RealTimePlan
from actor.spool import Spool
from robot_infra import envs
from serl_launcher.config import RunConfig
from serl_launcher.config.transport import TransportConfig
from serl_launcher.publication import Publisher
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.client import LearnerClient
from serl_launcher.types import ActionChunk, Observation, Unfinished
from tools.bench_latency.arms import Arm
from tools.bench_latency.robot import Robot
from tools.bench_latency.seams import Cell
from tools.bench_serving.orders import HIORS, ServerOrder
from tools.bench_serving.processes import serving


@dataclass(slots=True)
class HeldBack:
    """An action service whose answers arrive later than they came."""

    service: ActionService
    rng: np.random.Generator
    range_ms: tuple[float, float] = (0.0, 0.0)

    def act_async(
        self, observations: list[Observation], *, timeout_s: float, unfinished: Sequence[Unfinished | None] = ()
    ) -> "Future[list[ActionChunk]]":
        """Asks; the future ends some time after the answer."""
        late: Future[list[ActionChunk]] = Future()
        late.set_running_or_notify_cancel()
        delay_ms = float(self.rng.uniform(*self.range_ms))
        more = {"unfinished": unfinished} if unfinished else {}
        asked = self.service.act_async(observations, timeout_s=timeout_s, **more)
        asked.add_done_callback(lambda done: self._hold_back(done, late, delay_ms))
        return late

    def _hold_back(self, done: "Future[list[ActionChunk]]", late: "Future[list[ActionChunk]]", delay_ms: float) -> None:
        def hand_over() -> None:
            error = done.exception()
            if error is not None:
                late.set_exception(error)
                return
            for chunk in done.result():
                chunk.timings_ms["round_trip"] = chunk.timings_ms.get("round_trip", 0.0) + delay_ms
            late.set_result(done.result())

        timer = threading.Timer(1e-3 * delay_ms, hand_over)
        timer.daemon = True
        timer.start()


class WallBench:
    """A served policy and one robot beside it."""

    def __init__(self, config: RunConfig, policy: Path, root: Path, *, hz: float) -> None:
        """Publishes `policy` below `root`."""
        self._config, self._root, self._hz = config, root, hz
        policies = root / "policies"
        Publisher(policies).publish(lambda path: shutil.copytree(policy, path, dirs_exist_ok=True) and None, 1)

    def run(self, arm: Arm, range_ms: tuple[float, float], *, seconds: float, first_seed: int) -> tuple[Cell, int]:
        """Plays episodes for so many seconds; returns them, and ticks that began late because of this machine."""
        order = ServerOrder(
            kind=HIORS, root=str(self._root / "server"), policies=str(self._root / "policies"), max_wait_ms=0.0
        )
        with contextlib.ExitStack() as stack:
            ports, _ = stack.enter_context(serving(order))
            service, env = self._connect(ports, stack), envs.build(self._config.environment)
            stack.callback(env.close)
            held_back = HeldBack(service, np.random.default_rng(0), range_ms)
            policy = RemotePolicy(held_back, timeout_s=5.0, is_stopping=lambda: False)
            actor = self._config.actor
            plan = RealTimePlan(
                policy=policy, execution_horizon=actor.execution_horizon, latency=LatencyEstimate(1 / self._hz),
                chunking=arm.chunking, max_under_way=actor.max_requests, ensemble_decay=actor.ensemble_decay,
            )  # fmt: skip
            robot, pacer = Robot(env=env, plan=plan, tick_s=1 / self._hz), Pacer(1 / self._hz)
            cell = Cell(arm=arm.name, low_ms=range_ms[0], high_ms=range_ms[1], episodes=[])
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                robot.begin(first_seed + len(cell.episodes))
                pacer.start()
                while (episode := robot.tick()) is None:
                    pacer.finish_tick()
                cell.episodes.append(episode)
        return cell, pacer.num_late

    def _connect(self, ports: tuple[int, int], stack: contextlib.ExitStack) -> LearnerClient:
        path = self._root / "policies" / "00000001" / "spec.json"
        spec = msgspec.json.decode(path.read_bytes(), type=RobotSpec)
        spool = Spool(self._root / "spool", max_bytes=2**26, when_full="pause")
        stack.callback(spool.close)
        config = TransportConfig(request_port=ports[0], broadcast_port=ports[1])
        client = LearnerClient(config, "127.0.0.1", actor_id="robot", spec=spec, spool=spool)
        client.start()
        stack.callback(client.close)
        return client
