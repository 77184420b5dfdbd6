"""How a learner process begins and ends: log files, locks, signals, threads that must not die unseen."""

import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from serl_launcher.allocator import keep_freed_memory
from serl_launcher.errors import HiorsError

logger = logging.getLogger(__name__)

EXIT_STOPPED = 143
"""Ended in good order because a signal asked for it (128 + SIGTERM). 0 means that the work itself is finished."""

EXIT_DIVERGED = 3
"""Training stopped being finite again and again: a restart would repeat it, a person must change something."""

SUPERVISOR_VARIABLE = "HIORS_SUPERVISOR_PID"
"""Set by the supervisor for its children: a child whose supervisor is gone ends in good order."""

_SWITCH_INTERVAL_S = 0.0005

_OWN_PACKAGES = ("learner", "serl_launcher")


def log_to_file(path: Path) -> None:
    """Adds a log file (DEBUG of our packages, INFO of others) to what already goes to the terminal (INFO)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for handler in logging.getLogger().handlers:
        handler.setLevel(max(handler.level, logging.INFO))
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.getLogger().addHandler(file)
    logging.getLogger().setLevel(logging.INFO)
    for package in _OWN_PACKAGES:
        logging.getLogger(package).setLevel(logging.DEBUG)


def stop_on_signals() -> threading.Event:
    """Returns an event that SIGTERM, SIGINT or the death of the supervisor sets. Call it in the main thread."""
    stop = threading.Event()

    def request_stop(signum: int, _frame: object) -> None:
        logger.debug("Received %s.", signal.Signals(signum).name)
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, request_stop)
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor is not None:
        threading.Thread(target=_stop_with, args=(int(supervisor), stop), name="supervisor-watch", daemon=True).start()
    return stop


def _stop_with(pid: int, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        if not is_alive(pid):
            logger.warning("The supervisor (process %d) is gone; ending in good order.", pid)
            stop.set()


def answer_quickly() -> None:
    """Sets the interpreter and the C library up for a process that answers action requests.

    A request passes through three threads; while an episode is sealed beside them, each handover would wait 5 ms by
    default until the computing thread gives way.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    keep_freed_memory()


def is_alive(pid: int) -> bool:
    """Returns whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class RunLock:
    """Keeps a second process of one kind out of a run directory; the kernel frees it when the process dies."""

    def __init__(self, path: Path, *, timeout_s: float = 15.0) -> None:
        """Takes the lock, waiting for a predecessor that is just ending.

        Raises:
            HiorsError: Another process still holds it after `timeout_s`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        deadline = time.monotonic() + timeout_s
        while not self._try_lock():
            if time.monotonic() >= deadline:
                self._file.seek(0)
                holder = self._file.read().strip() or "unknown"
                self._file.close()
                raise HiorsError(
                    f"Process {holder} already works on this run (it holds {path}). Stop it, or start this one with "
                    "another unique_identifier."
                )
            time.sleep(0.2)
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> "RunLock":
        """Returns itself; the lock is held since construction."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Frees the lock."""
        self._file.close()


class Worker:
    """A thread whose failure is seen: `check` raises in the caller what ended it."""

    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        """Prepares a thread that runs `work(stop)` until `stop` is set."""
        self._work = work
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises HiorsError, from the cause, where the thread failed."""
        if self._failure is not None:
            raise HiorsError(f"The thread {self._thread.name!r} failed: {self._failure}.") from self._failure

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Asks the thread to end and waits for it; logs a warning where it does not."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("The thread %r did not end within %.0f s.", self._thread.name, timeout_s)

    def _run(self) -> None:
        try:
            self._work(self._stop)
        except Exception as exc:
            self._failure = exc
            logger.exception("The thread %r failed.", self._thread.name)
