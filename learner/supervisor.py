"""Keeps the learner's processes alive: the server and the trainer, restarted when they die, stopped together.

starting -> running -> (trainer exits 0) -> finishing -> server exits 0 -> 0
|
+--- Ctrl-C or SIGTERM ---> stopping: SIGTERM to all, wait, kill what is left -> 0
+--- a child exits with EXIT_CONFIG (2): it can never run -> stopping -> 2
+--- the trainer exits with EXIT_DIVERGED (3): a restart would repeat it -> stopping -> 3
+--- a child fails `MAX_FAILURES` times in a row -> stopping -> 1
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learner.lifetime import EXIT_DIVERGED
from serl_launcher.config.loader import EXIT_CONFIG

logger = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Failures in a row, each within `STABLE_S` of its start, after which a child is given up."""
STABLE_S = 60.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
STOP_GRACE_S = 90.0
FINISH_GRACE_S = 120.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSpec:
    """How one child process is started, and whether its good end is the end of the run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_goal: bool = False
    """Whether its exit status 0 finishes the run."""


class Child:
    """One supervised process, in a process group of its own."""

    def __init__(self, spec: ChildSpec) -> None:
        """Starts nothing yet."""
        self.spec = spec
        self.num_failures = 0
        self.restart_at = 0.0
        self.is_done = False
        """Whether it ended with status 0: it has nothing left to do."""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Starts the process; the terminal's Ctrl-C does not reach it, only our signals do."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            list(self.spec.command),
            env={**os.environ, **self.spec.environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        logger.debug("Started the %s, process %d.", self.spec.name, self._process.pid)

    @property
    def is_running(self) -> bool:
        """Whether a process exists that has not been seen to end."""
        return self._process is not None

    def poll(self) -> int | None:
        """Returns the exit status once when the process has ended, negative for a signal; None otherwise."""
        if self._process is None:
            return None
        status = self._process.poll()
        if status is not None:
            self.signal(signal.SIGKILL)  # Ranks of a launcher that died.
            self._process = None
            self.is_done = status == 0
        return status

    def signal(self, signum: signal.Signals) -> None:
        """Sends a signal to the process and everything it started."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            logger.debug("The process group of the %s is gone.", self.spec.name)

    def plan_restart(self, status: int) -> None:
        """Decides when to start again: at once after a kill from outside, with growing pauses after own failures."""
        if time.monotonic() - self._started > STABLE_S or status == -signal.SIGKILL:
            self.num_failures = 0
        else:
            self.num_failures += 1
        pause_s = min(FIRST_PAUSE_S * 2**self.num_failures, LONGEST_PAUSE_S)
        self.restart_at = time.monotonic() + pause_s
        logger.warning("The %s ended with status %d; starting it again in %.1f s.", self.spec.name, status, pause_s)


class Supervisor:
    """Starts children, restarts them, ends them together."""

    def __init__(self, specs: Sequence[ChildSpec]) -> None:
        """Prepares the children; `run` starts them."""
        self._children = [Child(spec) for spec in specs]

    def run(self, stop: threading.Event) -> int:
        """Runs until the goal is reached, `stop` is set or a child cannot run; returns the exit status."""
        for child in self._children:
            child.start()
        status = self._watch(stop)
        if status is None:
            logger.info("Stopping the learner.")
            status = 0
            self._stop_all(STOP_GRACE_S)
        elif status == 0:
            logger.info("The run is finished.")
            self._let_finish(stop)
        else:
            self._stop_all(STOP_GRACE_S)
        return status

    def _watch(self, stop: threading.Event) -> int | None:
        """Returns the run's exit status, None when it was asked to stop."""
        while not stop.wait(_POLL_S):
            for child in self._children:
                verdict = self._look_after(child)
                if verdict is not None:
                    return verdict
        return None

    def _look_after(self, child: Child) -> int | None:
        if not child.is_running and not child.is_done and time.monotonic() >= child.restart_at:
            child.start()
        status = child.poll()
        if status is None:
            return None
        if status == 0:
            return 0 if child.spec.is_goal else None
        if status == EXIT_CONFIG:
            logger.error("The %s cannot run with this configuration; see its message above.", child.spec.name)
            return EXIT_CONFIG
        if status == EXIT_DIVERGED:
            logger.error("The %s has given up and is not started again; see its message above.", child.spec.name)
            return EXIT_DIVERGED
        child.plan_restart(status)
        if child.num_failures >= MAX_FAILURES:
            logger.error(
                "The %s failed %d times in a row and is given up; its log file says why.", child.spec.name, MAX_FAILURES
            )
            return 1
        return None

    def _let_finish(self, stop: threading.Event) -> None:
        """Waits for the children that end by themselves once the goal is reached, restarting none but the killed."""
        deadline = time.monotonic() + FINISH_GRACE_S
        while time.monotonic() < deadline and not stop.wait(_POLL_S):
            for child in self._children:
                status = child.poll()
                if status is not None and status != 0:
                    child.plan_restart(status)
                    child.start()
            if not any(child.is_running for child in self._children):
                return
        self._stop_all(STOP_GRACE_S)

    def _stop_all(self, grace_s: float) -> None:
        for child in self._children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while any(child.is_running for child in self._children) and time.monotonic() < deadline:
            for child in self._children:
                child.poll()
            time.sleep(_POLL_S)
        for child in self._children:
            if child.is_running:
                logger.warning("The %s did not end within %.0f s and is killed.", child.spec.name, grace_s)
                child.signal(signal.SIGKILL)
