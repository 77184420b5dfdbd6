"""`python -m learner.launcher N module key=value ...`: N ranks of a module on this machine that live and die together.

It sets the variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so
that the module runs under torchrun just as well, over several machines, too. Unlike torchrun it starts without torch,
and it ends as the first rank that did not end well: one that is killed from outside is no failure of ours, which the
supervisor must be able to tell.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_GRACE_S = 10.0
"""How long the others may go on once a rank has ended badly."""
_POLL_S = 0.05


def main(arguments: Sequence[str]) -> int:
    """Runs the ranks; returns the first bad exit status (negative for a signal), 0 when all ended well."""
    num_ranks, module, *rest = arguments
    ranks = start(int(num_ranks), [sys.executable, "-m", module, *rest])

    def pass_on(signum: int, _frame: object) -> None:
        _signal(ranks, signal.Signals(signum))

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, pass_on)
    return wait(ranks)


def start(num_ranks: int, command: Sequence[str]) -> list["subprocess.Popen[bytes]"]:
    """Starts the ranks; they meet at a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    return [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(num_ranks)
    ]


def wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Waits until every rank has ended; once one ended badly, the others are given some seconds, then killed."""
    first_bad, deadline = 0, float("inf")
    while None in [rank.poll() for rank in ranks]:
        bad = [rank.returncode for rank in ranks if rank.returncode]
        if bad and not first_bad:
            # Of several that ended together, the killed one: the others failed because of it.
            first_bad = min(bad)
            # The others wait for a killed rank in vain; one that failed by itself may have told them to end.
            deadline = time.monotonic() + (0.0 if first_bad < 0 else _GRACE_S)
        if time.monotonic() >= deadline:
            _signal(ranks, signal.SIGKILL)
        time.sleep(_POLL_S)
    return first_bad or next((rank.returncode for rank in ranks if rank.returncode), 0)


def _signal(ranks: Sequence["subprocess.Popen[bytes]"], signum: signal.Signals) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signum)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        # Whoever waits for us sees what happened to the rank.
        os.kill(os.getpid(), -status)
    sys.exit(status)
