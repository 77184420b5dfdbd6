"""Runs something in a process of its own that must die at a failpoint."""

import os
import signal
import traceback
from collections.abc import Callable

from serl_launcher import failpoints


def dies(work: Callable[[], object], place: str) -> None:
    """Forks; the child runs `work` and must be killed at that place."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            failpoints.arm(place)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"{place!r} was not reached (exit status {os.waitstatus_to_exitcode(status)})"
    assert os.WTERMSIG(status) == signal.SIGKILL
