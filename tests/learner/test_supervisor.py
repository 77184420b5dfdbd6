"""Real processes: small Python programs in the place of server and trainer."""

import os
import signal
import sys
import threading
import time

import pytest

from learner import supervisor
from learner.supervisor import ChildSpec, Supervisor

APPEND_START = "import os, pathlib, sys, time\np = pathlib.Path(sys.argv[1])\np.open('a').write(f'{os.getpid()}\\n')\n"
SLEEP = "time.sleep(60)\n"
END_ON_TERM = (
    "import signal\n"
    "signal.signal(signal.SIGTERM, lambda *_: (p.open('a').write('ended\\n'), sys.exit(143)))\n"
    "p.open('a').write('ready\\n')\n"
)


def child(name, program, log, *, is_goal=False):
    return ChildSpec(
        name=name, command=[sys.executable, "-c", APPEND_START + program, str(log)], environment={}, is_goal=is_goal
    )


def starts(log):
    return [int(line) for line in log.read_text().splitlines() if line.isdigit()] if log.exists() else []


def wait_until(condition, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "Timed out."
        time.sleep(0.02)


@pytest.fixture(name="running")
def fixture_running():
    stop, threads, results = threading.Event(), [], []

    def run(*specs):
        thread = threading.Thread(target=lambda: results.append(Supervisor(specs).run(stop)))
        threads.append(thread)
        thread.start()
        return stop, thread, results

    yield run
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def fixture_short_pauses(monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.02)


def test_a_killed_child_is_started_again(tmp_path, running):
    stop, thread, results = running(child("server", SLEEP, tmp_path / "log"))
    wait_until(lambda: len(starts(tmp_path / "log")) == 1)
    os.kill(starts(tmp_path / "log")[0], signal.SIGKILL)
    wait_until(lambda: len(starts(tmp_path / "log")) == 2)
    stop.set()
    thread.join(20)
    assert results == [0]


def test_stop_ends_children_in_good_order(tmp_path, running):
    stop, thread, results = running(child("server", END_ON_TERM + SLEEP, tmp_path / "log"))
    wait_until(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text())
    stop.set()
    thread.join(20)
    assert "ended" in (tmp_path / "log").read_text()
    assert results == [0]


def test_the_goal_ends_the_run_once_the_others_have_ended(tmp_path, running):
    server = child("server", "while not p.with_name('trainer').exists(): time.sleep(0.05)\ntime.sleep(0.3)\n"
                   "p.open('a').write('sealed\\n')\n", tmp_path / "server")  # fmt: skip
    _, thread, results = running(server, child("trainer", "", tmp_path / "trainer", is_goal=True))
    thread.join(20)
    assert results == [0]
    assert "sealed" in (tmp_path / "server").read_text()


def test_a_child_that_ends_well_before_the_goal_is_not_started_again(tmp_path, running):
    trainer = child("trainer", "time.sleep(1.0)\n", tmp_path / "trainer", is_goal=True)
    _, thread, results = running(child("server", "", tmp_path / "server"), trainer)
    thread.join(20)
    assert results == [0]
    assert len(starts(tmp_path / "server")) == 1


def test_a_failing_goal_is_started_again_until_it_succeeds(tmp_path, running):
    program = "sys.exit(0 if len(p.read_text().splitlines()) == 3 else 1)\n"
    _, thread, results = running(child("trainer", program, tmp_path / "log", is_goal=True))
    thread.join(20)
    assert results == [0]
    assert len(starts(tmp_path / "log")) == 3


def test_a_child_that_keeps_failing_is_given_up(tmp_path, running):
    _, thread, results = running(child("trainer", "sys.exit(1)\n", tmp_path / "log", is_goal=True))
    thread.join(20)
    assert results == [1]
    assert len(starts(tmp_path / "log")) == supervisor.MAX_FAILURES


def test_a_wrong_configuration_is_not_tried_again(tmp_path, running):
    trainer = child("trainer", "sys.exit(2)\n", tmp_path / "trainer", is_goal=True)
    _, thread, results = running(child("server", SLEEP, tmp_path / "server"), trainer)
    thread.join(20)
    assert results == [2]
    assert len(starts(tmp_path / "trainer")) == 1


def test_a_training_that_has_given_up_is_not_tried_again(tmp_path, running, monkeypatch):
    monkeypatch.setattr(supervisor, "STABLE_S", 0.0)  # As if it had trained for long: earlier failures are forgotten.
    trainer = child("trainer", "sys.exit(3)\n", tmp_path / "trainer", is_goal=True)
    _, thread, results = running(child("server", SLEEP, tmp_path / "server"), trainer)
    thread.join(20)
    assert results == [3]
    assert len(starts(tmp_path / "trainer")) == 1


def test_what_a_killed_child_had_started_is_killed_too(tmp_path, running):
    program = (
        "import subprocess\n"
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "p.with_name('rank').open('a').write(f'{c.pid}\\n')\n" + SLEEP
    )
    running(child("trainer", program, tmp_path / "log"))
    wait_until(lambda: len(starts(tmp_path / "rank")) == 1)
    os.kill(starts(tmp_path / "log")[0], signal.SIGKILL)
    rank = starts(tmp_path / "rank")[0]
    wait_until(lambda: is_gone(rank))


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
