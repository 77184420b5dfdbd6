"""A robot on another computer: `environment.name=remote`."""

import contextlib
import itertools
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from robot_infra.insistence import Insistence
from robot_infra.interfaces import Transition
from robot_infra.serve import messages
from robot_infra.serve.messages import (
    Answer,
    Beat,
    Clear,
    Done,
    Failed,
    Hello,
    Question,
    Reset,
    Seen,
    Step,
    Stop,
    Welcome,
)
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ConfigError, ProtocolError, RobotError, SafetyError
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.keys import read_actor_keys
from serl_launcher.transport.sockets import ActorSockets
from serl_launcher.transport.waker import Waker
from serl_launcher.types import Observation

T = TypeVar("T", Welcome, Seen, Done, Beat)

BEAT_S = 0.5
STOP_S = 2.0
"""Deadline of one emergency stop; it is said again."""
LAST_STOP_S = 1.0
"""So long an emergency stop that was not heard yet is still said when the actor ends."""
RETRY_S = 0.05


class RemoteOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Everything below `environment.options` of `environment.name=remote`."""

    address: str
    """Of the robot's computer."""
    port: int = 5590
    keys_dir: str | None = None
    """Directory with this actor's keys for that robot, from `python -m tools.keys` there."""
    actor_id: str = "actor"
    connect_s: float = 10.0
    step_s: float = 1.0
    """Deadline of a step beyond its tick."""
    reset_s: float = 120.0


class RemoteRobot:
    """Satisfies `robot_infra.interfaces.RobotEnv`; every question has a deadline, after which the robot holds."""

    keeps_time = True

    def __init__(self, config: EnvironmentConfig) -> None:
        """Connects.

        Raises:
            ConfigError: A setting is wrong.
            RobotError: Nothing answers in time, or somebody else drives the robot.
        """
        try:
            options = msgspec.convert(config.options, RemoteOptions)
        except msgspec.ValidationError as exc:
            raise ConfigError(f"environment.options of remote: {exc}.") from exc
        self._options = options
        self._keys = read_actor_keys(Path(options.keys_dir), options.actor_id) if options.keys_dir else None
        self._transport = TransportConfig(request_port=options.port, broadcast_port=options.port + 1)
        self._waker, self._numbers, self._lock = Waker(), itertools.count(1), threading.Lock()
        self._sockets = ActorSockets(self._transport, options.address, keys=self._keys, waker=self._waker)
        self._stop = threading.Event()
        self._last: Observation | None = None
        self._stopping = Insistence("the emergency stop", self._say_stop)
        self._stop_reason, self._num_stops = "", 0
        try:
            self._spec = self._ask(Hello(next(self._numbers), options.actor_id), Welcome, options.connect_s).spec
        except RobotError:
            self._sockets.close()
            self._waker.close()
            raise
        self._beats = threading.Thread(target=self._beat, name="robot-beats", daemon=True)
        self._beats.start()

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like, as its computer says."""
        return self._spec

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode."""
        seen = self._ask(Reset(next(self._numbers), seed), Seen, self._options.reset_s)
        return self._observed(seen)

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [A]; returns what the sensors say at the end of the tick.

        Raises:
            SafetyError: The robot has a fault.
            RobotError: No answer in time; the robot holds by itself.
        """
        encoded = np.asarray(action, "<f4").tobytes()
        done = self._ask(Step(next(self._numbers), encoded), Done, 1 / self._spec.control_hz + self._options.step_s)
        return Transition(
            observation=self._observed(done.seen),
            reward=done.reward,
            terminated=done.terminated,
            truncated=done.truncated,
            success=done.success,
            executed_action=np.frombuffer(done.executed, "<f4").copy(),
            cost=done.cost,
        )

    def emergency_stop(self, reason: str) -> None:
        """Stops the robot, from any thread and at any time, without waiting; its computer is told until it answers."""
        self._stop_reason = reason
        self._num_stops += 1
        self._stopping.begin()

    def clear_fault(self, *, by: str) -> None:
        """Lets the robot move again; `by` names the person who says so.

        Raises:
            SafetyError, RobotError: Its alarm stays, or somebody stopped it meanwhile; so does its fault.
        """
        num_stops = self._num_stops
        self._stopping.end()
        self._ask(Clear(next(self._numbers), by), Beat, self._options.reset_s)
        if self._num_stops != num_stops:
            self._stopping.begin()  # It may have been silenced above.
            raise SafetyError(f"The robot was stopped again while {by} cleared the fault: {self._stop_reason}")

    def render(self) -> np.ndarray:
        """Returns the newest pictures side by side, uint8 (height, sum of widths, 3)."""
        if self._last is None:
            raise RobotError("Expected an episode: nothing was seen yet.")
        return np.concatenate([self._last.images[name] for name in self._spec.camera_names], axis=1)

    def close(self) -> None:
        """Lets go of the robot; may be called twice."""
        if self._stop.is_set():
            return
        self._stopping.end(patience_s=LAST_STOP_S)
        self._stop.set()
        self._beats.join(timeout=2.0)
        self._sockets.close()
        self._waker.close()

    def _observed(self, seen: Seen) -> Observation:
        self._last = messages.decode_seen(seen, self._spec)
        return self._last

    def _say_stop(self) -> None:
        """Says it on a connection of its own: the other may be waiting for the end of a reset."""
        question = Stop(next(self._numbers), self._stop_reason[:4000])
        with (
            contextlib.closing(Waker()) as waker,
            ActorSockets(self._transport, self._options.address, keys=self._keys, waker=waker) as sockets,
        ):
            _Line(sockets, self._options).ask(question, Beat, STOP_S)

    def _beat(self) -> None:
        """Keeps the lease between two steps that are far apart, e.g. while a policy is waited for."""
        while not self._stop.wait(BEAT_S):
            if self._lock.acquire(blocking=False):
                try:
                    self._sockets.send([messages.encode(Beat(0))])
                finally:
                    self._lock.release()

    def _ask(self, question: Question, kind: type[T], timeout_s: float) -> T:
        with self._lock:
            return _Line(self._sockets, self._options).ask(question, kind, timeout_s)


@dataclass(slots=True)
class _Line:
    """One connection to the robot's computer; used by one thread at a time."""

    sockets: ActorSockets
    options: RemoteOptions

    def ask(self, question: Question, kind: type[T], timeout_s: float) -> T:
        """Returns the answer of that kind; answers to earlier questions are dropped."""
        deadline_s = time.monotonic() + timeout_s
        while not self.sockets.send([messages.encode(question)]):
            self._wait(deadline_s, f"{self.options.address}:{self.options.port} cannot be reached")
        while True:
            frames = self.sockets.receive()
            if frames is None:
                self._wait(deadline_s, f"no answer to {type(question).__name__}")
                continue
            answer: Answer = messages.decode_answer(frames[0])
            if answer.number == question.number:
                return _expected(answer, kind)

    def _wait(self, deadline_s: float, reason: str) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise RobotError(
                f"The robot's computer: {reason}. The robot holds by itself. Check that `python -m robot_infra.serve` "
                "runs there, environment.options.address and port, and the keys."
            )
        self.sockets.wait(min(left_s, RETRY_S))


def _expected(answer: Answer, kind: type[T]) -> T:
    if isinstance(answer, Failed):
        raise (SafetyError if answer.is_safety else RobotError)(f"The robot's computer says: {answer.reason}")
    if not isinstance(answer, kind):
        raise ProtocolError(f"Expected {kind.__name__}, got {type(answer).__name__}.")
    return answer
