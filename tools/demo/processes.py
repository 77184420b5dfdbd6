"""Child processes of the demo: started, watched, started again when they die, ended together."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serl_launcher.config.loader import EXIT_CONFIG
from serl_launcher.errors import HiorsError

logger = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Failures in a row, each soon after a start, after which the demo gives up."""
SOON_S = 30.0
POLL_S = 0.5
STOP_GRACE_S = 60.0
LOG_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1

Tick = Callable[[], None]
Tell = Callable[[str], None]


class Process:
    """One script or module, with its output in a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        """Starts nothing yet."""
        self.name = name
        self.log = log
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._num_failures = 0
        self._is_asked = False

    def start(self) -> None:
        """Starts the script. The terminal's Ctrl-C does not reach it, and it ends when the demo dies."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        self._is_asked = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHON": sys.executable},
                start_new_session=True,
                preexec_fn=_prepare_child,
            )

    @property
    def pid(self) -> int:
        """Number of the process; raises HiorsError before its start."""
        if self._process is None:
            raise HiorsError(f"The {self.name} was not started yet.")
        return self._process.pid

    def poll(self) -> int | None:
        """Returns the exit status, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def restart(self, tell: Tell) -> None:
        """Starts a process that has ended again.

        Raises:
            HiorsError: It cannot run with these settings, or failed too often.
        """
        status = self.poll()
        is_early = time.monotonic() - self._started < SOON_S
        self._num_failures = self._num_failures + 1 if is_early and status != -signal.SIGKILL else 0
        if status == EXIT_CONFIG or self._num_failures >= MAX_FAILURES:
            raise HiorsError(
                f"The {self.name} cannot run (exit status {status}). End of {self.log}:\n{self.log_tail()}"
            )
        tell(f"The {self.name} ended ({_describe(status)}); it is started again.")
        time.sleep(min(0.5 * 2**self._num_failures, 10.0))
        self.start()

    def ask_to_stop(self) -> None:
        """Sends SIGINT, the orderly end, once: a second one ends an actor at once."""
        if self._process is not None and self._process.poll() is None and not self._is_asked:
            self._is_asked = True
            self._process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> bool:
        """Returns whether the process has ended within that time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ends the process: asks, waits, then kills it."""
        self.ask_to_stop()
        if not self.wait(grace_s) and self._process is not None:
            logger.warning("The %s did not end within %.0f s and is killed.", self.name, grace_s)
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """Returns the end of the log file."""
        if not self.log.exists():
            return "(empty)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


class Crew:
    """The processes of one phase; a context manager that leaves none behind."""

    def __init__(self, processes: Sequence[Process], tell: Tell) -> None:
        """Starts the processes on entering; `tell` shows messages to the person."""
        self._processes = processes
        self._tell = tell

    def __enter__(self) -> "Crew":
        """Starts every process, in order."""
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends every process that still runs."""
        for process in self._processes:
            process.ask_to_stop()
        for process in self._processes:
            process.stop()

    def run_until_finished(self, goal: Process, tick: Tick) -> None:
        """Blocks until `goal` ends with status 0; whatever dies before is started again."""
        while goal.poll() != 0:
            for process in self._processes:
                # An actor that was told to stop ends with 0 shortly before its learner.
                if process.poll() not in (None, 0):
                    process.restart(self._tell)
            tick()
            time.sleep(POLL_S)

    def run_until(self, condition: Callable[[], bool], tick: Tick, *, timeout_s: float) -> bool:
        """Blocks until the condition holds, keeping the processes alive; returns whether it did in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            for process in self._processes:
                if process.poll() not in (None, 0):
                    process.restart(self._tell)
            tick()
            time.sleep(POLL_S)
        return True


def _describe(status: int | None) -> str:
    if status is not None and status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def _prepare_child() -> None:
    # Runs between fork and exec. What a shell starts in the background ignores SIGINT, and so would all that it starts:
    # an actor could not be asked to end. Without the second a killed demo would leave robots running.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
