import os
import signal
import subprocess
import sys
import time

import pytest

from learner.lifetime import SUPERVISOR_VARIABLE, RunLock, Worker
from serl_launcher.errors import HiorsError

HOLD_LOCK = (
    "import sys, time, pathlib\nfrom learner.lifetime import RunLock\n"
    "with RunLock(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)
WAIT_FOR_STOP = (
    "from learner.lifetime import stop_on_signals\nstop = stop_on_signals()\nprint('ready', flush=True)\n"
    "raise SystemExit(3 if stop.wait(30) else 4)\n"
)


def start(program, *arguments, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, env={**os.environ, **variables}
    )


def test_a_second_holder_of_the_lock_is_told_who_holds_it(tmp_path):
    with RunLock(tmp_path / "lock"), pytest.raises(HiorsError, match=str(os.getpid())):
        RunLock(tmp_path / "lock", timeout_s=0.3)


def test_the_lock_is_free_after_its_holder_was_killed(tmp_path):
    with start(HOLD_LOCK, str(tmp_path / "lock")) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    with RunLock(tmp_path / "lock", timeout_s=5.0):
        pass


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop(signum):
    with start(WAIT_FOR_STOP) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signum)
        assert process.wait(10) == 3


def test_a_process_whose_supervisor_is_gone_stops():
    supervisor = start("import time; time.sleep(60)")
    with supervisor, start(WAIT_FOR_STOP, **{SUPERVISOR_VARIABLE: str(supervisor.pid)}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        supervisor.kill()
        supervisor.wait()
        assert process.wait(10) == 3


def test_the_failure_of_a_worker_is_raised_where_it_is_checked():
    def fail(_stop):
        raise ValueError("no disk")

    worker = Worker("writer", fail)
    worker.start()
    worker.stop()
    with pytest.raises(HiorsError, match="'writer' failed: no disk"):
        worker.check()


def test_a_worker_ends_when_asked():
    seen = []
    worker = Worker("waiter", lambda stop: seen.append(stop.wait(10)))
    worker.start()
    worker.check()
    started = time.monotonic()
    worker.stop()
    assert seen == [True]
    assert time.monotonic() - started < 2
