"""A tiny robot with a console on a real port, its control loop in a thread, and a client that a test drives."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from actor.clearance import Clearance
from actor.console import Console
from actor.console.loop_state import LoopState
from actor.console.shown_env import ShownEnv
from actor.intervention import Control
from actor.pacer import Pacer
from actor.progress import Progress
from actor.recorder import Recorder
from actor.rewards import JudgedEnv, RewardBus
from actor.rewards.late_labels import LateLabels
from actor.rollout import Rollout, gate_of
from robot_infra import safety
from robot_infra.interfaces import Operator, RobotEnv, keeps_time
from serl_launcher.config.actor import ActorConfig
from serl_launcher.config.beside import ConsoleConfig
from serl_launcher.config.root import RunConfig
from serl_launcher.types import ActionChunk, Observation
from tests.actor.recording import open_spool
from tests.actor.test_clearance import Heard
from tests.actor.tiny_robot import TinyRobot

Condition = Callable[[dict[str, Any]], bool]


class StandsStill:
    """A policy that wants to be where the robot is."""

    def chunk_for(self, observation: Observation, *, patience_s: float = 0.0) -> ActionChunk:
        return ActionChunk(actions=np.tile(observation.state, (4, 1)), policy_version=3)

    def forget(self) -> None:
        pass


class Unconnected:
    is_connected = False

    def send_stats(self, values: object) -> None:
        pass


@dataclass
class Client:
    """One viewer; keeps the newest of everything that it is told."""

    socket: ClientConnection
    state: dict[str, Any] = field(default_factory=dict)
    welcome: dict[str, Any] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    pictures: dict[int, bytes] = field(default_factory=dict)

    def say(self, kind: str, **more: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **more}))

    def jog(self, **axes: float) -> None:
        self.say("jog", axes=axes)

    def until(self, condition: Condition, *, jog: dict[str, float] | None = None) -> dict[str, Any]:
        """Listens until a state fulfils the condition, ten seconds at most; jogs meanwhile where told to."""
        deadline_s, jogged_s = time.monotonic() + 10, 0.0
        while not (self.state and condition(self.state)):
            assert time.monotonic() < deadline_s, self.state
            if jog is not None and time.monotonic() - jogged_s > 0.05:
                self.jog(**jog)
                jogged_s = time.monotonic()
            self.listen()
        return self.state

    def until_refused(self) -> str:
        deadline_s = time.monotonic() + 10
        while not self.refusals:
            assert time.monotonic() < deadline_s
            self.listen()
        return self.refusals[-1]

    def listen(self) -> None:
        """Takes one message."""
        received = self.socket.recv(timeout=10)
        if isinstance(received, bytes):
            self.pictures[received[0]] = received[1:]
            return
        told = json.loads(received)
        match told["type"]:
            case "state":
                self.state = told
            case "welcome":
                self.welcome = told
            case "refused":
                self.refusals.append(told["message"])


@dataclass
class Rig:
    rollout: Rollout
    robot: Any  # A TinyRobot, unless a test brings its own.
    console: Console
    clearance: Clearance
    token: str

    @property
    def port(self) -> int:
        assert self.console._server is not None
        return self.console._server.port

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Client]:
        with connect(f"ws://127.0.0.1:{self.port}/live?token={self.token}") as socket:
            client = Client(socket)
            client.until(lambda state: state["step"] > 0)  # An episode begins without a driver; now it has begun.
            yield client


@contextlib.contextmanager
def running(
    directory: Path, *, person: Operator | None = None, robot: RobotEnv | None = None, **settings: Any
) -> Iterator[Rig]:
    """Plays episodes of a robot with a console until the block ends: of a tiny one at 50 Hz, or of the one given."""
    console_config = ConsoleConfig(**{"enabled": True, "port": 0, "fps": 50.0, **settings})
    config = RunConfig(output_dir=str(directory), actor=ActorConfig(console=console_config))
    bus = RewardBus()
    console = Console.of(config, bus)
    robot = robot or TinyRobot(max_steps=100_000)
    spec = robot.spec
    env = ShownEnv(JudgedEnv(robot, bus, environment_judges=False))
    with contextlib.closing(open_spool(directory)) as spool, contextlib.closing(console):
        clearance = Clearance(learner=Heard(), room=spool, poll_s=0.01)
        control = Control(policy=StandsStill(), operator=console.operator(spec, person), execution_horizon=2)
        rollout = Rollout(
            env=env, control=control, gate=gate_of(env, safety.limits_of(spec, [0.2])),
            recorder=Recorder(log=spool, spec=spec, actor_id="actor-0"),
            progress=Progress.load(directory / "progress.json"), clearance=clearance, recovery=console.recovery,
            bus=bus, pacer=Pacer(0.0 if keeps_time(env) else 0.02),
        )  # fmt: skip
        labels = LateLabels(bus=bus, recorder=rollout.recorder, progress=rollout.progress)
        state = LoopState(
            rollout=rollout, env=env, desk=console.desk, spool=spool, connection=Unconnected(),
            recovery=console.recovery,
        )  # fmt: skip
        console.serve(rollout.gate, env, state)
        loop = threading.Thread(
            target=lambda: rollout.run(num_episodes=0, after_episode=lambda episode: None, on_tick=labels.apply)
        )
        loop.start()
        token = (directory / "run" / "console-actor-0.token").read_text().strip()
        try:
            yield Rig(rollout, robot, console, clearance, token)
        finally:
            clearance.request_stop()
            loop.join(10)
        labels.apply()
        assert not loop.is_alive()
