"""Drives a robot for one actor at a time, and holds it when that actor falls silent.

idle -- hello --> leased -- reset, step --> playing -- silence beyond a tick and 100 ms --> holding -- step --> playing

One thread listens, another works with the robot: an emergency stop is heard in the middle of a reset.
"""

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from robot_infra import safety
from robot_infra.interfaces import RobotEnv, clear_fault, emergency_stop
from robot_infra.safety import FaultKind
from robot_infra.serve import messages
from robot_infra.serve.messages import Beat, Clear, Done, Failed, Hello, Question, Reset, Step, Stop, Welcome, encode
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import HiorsError, ProtocolError, SafetyError
from serl_launcher.transport.keys import AllowList, read_learner_keys
from serl_launcher.transport.messages import Frames
from serl_launcher.transport.sockets import LearnerSockets
from serl_launcher.transport.waker import Waker

logger = logging.getLogger(__name__)

IDLE_POLL_S = 0.2


class RobotServer:
    """One robot and whoever may drive it. Everything that arrives is checked; nothing that arrives ends the server."""

    def __init__(self, env: RobotEnv, config: TransportConfig) -> None:
        """Listens at `config.bind`, `config.request_port`.

        Raises:
            ConfigError: Listening beyond this machine without keys was not asked for explicitly.
            TransportError: The port is taken.
        """
        self._env, self._config = env, config
        self._gate = safety.Gate(safety.limits_of(env.spec, []), on_emergency_stop=partial(emergency_stop, env))
        self._period_s = 1 / env.spec.control_hz
        self._waker = Waker()
        try:
            self._sockets = self._listen()
        except HiorsError:
            self._waker.close()
            raise
        self._robot = ThreadPoolExecutor(max_workers=1, thread_name_prefix="robot")
        self._work: deque[tuple[bytes, Future[messages.Answer]]] = deque()
        """What the robot was asked for and has not answered, in order, and who wants to know."""
        self._holding: Future[None] | None = None
        self._tenant = b""
        self._heard_s = self._commanded_s = -float("inf")
        """When the actor said anything, and when its last question for the robot was dealt with, monotonic."""
        self._is_playing = False
        self.num_holds = 0
        """How often the actor fell silent in the middle of an episode."""

    def _listen(self) -> LearnerSockets:
        keys_dir = Path(self._config.keys_dir) if self._config.keys_dir else None
        allowed = AllowList(keys_dir) if keys_dir else None
        return LearnerSockets(
            self._config,
            keys=read_learner_keys(keys_dir) if keys_dir else None,
            is_allowed=allowed.is_allowed if allowed else lambda key: False,
            waker=self._waker,
        )

    @property
    def port(self) -> int:
        """Where the robot is driven."""
        return self._sockets.ports[0]

    def run(self, stop: threading.Event) -> None:
        """Serves until told to stop; then, and also where serving fails, brakes the robot and lets go."""
        try:
            while not stop.is_set():
                self._sockets.wait(self._patience_s())
                self._sockets.authenticate()
                while (received := self._sockets.receive()) is not None:
                    connection, _, frames = received
                    self._listen_to(connection, frames)
                self._tell()
                if self._is_playing and not self._work and self._is_silent():
                    self._begin_to_hold()
        finally:
            self._robot.submit(self._brake).result()
            self._robot.shutdown()
            self._sockets.close()
            self._waker.close()

    def stop(self, event: threading.Event) -> None:
        """Ends `run` from any thread."""
        event.set()
        self._waker.wake()

    def _patience_s(self) -> float:
        if not self._is_playing:
            return IDLE_POLL_S
        return max(0.0, min(IDLE_POLL_S, self._commanded_s + self._period_s + safety.WATCHDOG_S - time.monotonic()))

    def _is_silent(self) -> bool:
        # Beats keep the lease, they are no commands: a robot in motion must not wait for one that comes after a beat.
        return safety.is_silent(last_command_s=self._commanded_s, now_s=time.monotonic(), period_s=self._period_s)

    def _tell(self) -> None:
        """Sends the answers that the robot has given."""
        while self._work and self._work[0][1].done():
            connection, answer = self._work.popleft()
            self._sockets.send(connection, [encode(answer.result())])

    def _listen_to(self, connection: bytes, frames: Frames) -> None:
        """Answers what needs no robot, and lets the robot work on the rest."""
        try:
            question = messages.decode_question(frames[0] if len(frames) == 1 else b"")
        except ProtocolError as exc:
            logger.warning("A message was refused: %s", exc)
            self._sockets.send(connection, [encode(Failed(0, str(exc)[:4000], is_safety=False))])
            return
        try:
            answer = self._answer(connection, question)
        except HiorsError as exc:
            answer = _failure(question, exc)
        if answer is not None:
            self._sockets.send(connection, [encode(answer)])
            return
        working = self._robot.submit(self._execute, question, num_faults=self._gate.num_faults)
        self._work.append((connection, working))
        working.add_done_callback(lambda _: self._waker.wake())

    def _answer(self, connection: bytes, question: Question) -> messages.Answer | None:
        """Returns the answer to what needs no robot; None where it has to work, or to be asked."""
        if isinstance(question, Stop):
            logger.warning("Emergency stop: %s", question.reason)
            self._gate.trip(FaultKind.EMERGENCY_STOP, question.reason)
            return Beat(question.number)
        now = time.monotonic()
        is_free = not self._work and now - self._heard_s > self._config.dead_after_s
        if isinstance(question, Hello):
            if question.version != messages.VERSION:
                raise ProtocolError(f"Expected protocol {messages.VERSION}, the actor speaks {question.version}.")
            if connection != self._tenant and not is_free:
                raise ProtocolError("The robot is driven by another actor; stop that one first.")
            self._tenant, self._heard_s = connection, now
            logger.info("Actor %r drives the robot.", question.actor_id)
            return Welcome(question.number, self._env.spec)
        if connection != self._tenant:
            raise ProtocolError("Say hello first: the robot is driven by another actor, or was restarted.")
        self._heard_s = now
        return question if isinstance(question, Beat) else None

    def _execute(self, question: Question, *, num_faults: int) -> messages.Answer:
        """Works with the robot; returns what came of it. `num_faults` there had been when the actor asked."""
        try:
            match question:
                case Reset():
                    return self._reset(question)
                case Step():
                    return self._step(question)
                case Clear(by=by):
                    clear_fault(self._env, by=by)
                    self._gate.clear_fault(by=by, seen=num_faults)
                    return Beat(question.number)
                case _:
                    what = type(question).__name__
                    return _failure(question, ProtocolError(f"Expected a question for the robot, got {what}."))
        except HiorsError as exc:
            return _failure(question, exc)
        except Exception as exc:  # A mistake in a driver; nothing that arrives may end the server.
            logger.exception("The robot's driver failed at %s; the robot holds.", type(question).__name__)
            self._gate.trip(FaultKind.ROBOT, f"its driver failed: {exc!r}")
            self._brake()
            return _failure(question, SafetyError(f"The robot holds, its driver failed: {exc!r}"))
        finally:
            # What the robot took for itself is no silence of the actor.
            self._heard_s = self._commanded_s = time.monotonic()

    def _reset(self, question: Reset) -> messages.Answer:
        self._is_playing = False
        self._gate.require_clear()  # Not even a reset may move a robot with a fault.
        observation = self._env.reset(seed=question.seed)
        self._gate.begin(safety.standing_still(self._env.spec, observation.state))
        return messages.encode_seen(question.number, observation)

    def _step(self, question: Step) -> messages.Answer:
        action = np.frombuffer(question.action, "<f4") if len(question.action) % 4 == 0 else np.zeros(0, np.float32)
        transition = self._env.step(self._gate.admit(action))
        self._gate.note_executed(transition.executed_action)
        self._is_playing = not (transition.terminated or transition.truncated)
        return Done(
            question.number,
            messages.encode_seen(question.number, transition.observation),
            float(transition.reward),
            transition.terminated,
            transition.truncated,
            transition.success,
            transition.executed_action.astype("<f4").tobytes(),
            float(transition.cost),
        )

    def _begin_to_hold(self) -> None:
        if self._holding is None or self._holding.done():
            self._holding = self._robot.submit(self._hold)

    def _hold(self) -> None:
        """The actor is silent: brakes, then stays."""
        self._is_playing = False
        logger.warning("No command for %.0f ms: the robot holds.", 1e3 * (time.monotonic() - self._commanded_s))
        self._brake()
        self.num_holds += 1

    def _brake(self) -> None:
        try:
            command = self._gate.hold()
            while command is not None:
                self._env.step(command)
                command = self._gate.hold() if self._gate.is_moving else None
        except SafetyError:
            pass  # A robot with a fault of its own has stopped already.
        except Exception:  # Whatever its driver raises: the server goes on, or ends in order.
            logger.exception("The robot could not be braked; it stays as its driver left it.")


def _failure(question: Question, error: HiorsError) -> Failed:
    return Failed(question.number, str(error)[:4000], is_safety=isinstance(error, SafetyError))
