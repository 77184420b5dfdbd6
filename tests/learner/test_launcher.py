"""Real processes: small modules in the place of the trainer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, pathlib, signal, sys, time
directory, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
rank = os.environ["RANK"]
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
told = " ".join(f"{name}={os.environ[name]}" for name in names)
(directory / f"rank-{rank}").write_text(f"{told} PID={os.getpid()}")
if behaviour == "wait":
    time.sleep(60)
elif behaviour == "fail" and rank == "1":
    sys.exit(2)
elif behaviour == "fail":
    time.sleep(60)
"""


@pytest.fixture(name="launch")
def fixture_launch(tmp_path):
    (tmp_path / "rank_program.py").write_text(PROGRAM)
    started = []

    def start(behaviour):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
        command = [sys.executable, "-m", "learner.launcher", "2", "rank_program", str(tmp_path), behaviour]
        started.append(subprocess.Popen(command, env=environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def variables(directory, rank):
    path, deadline = directory / f"rank-{rank}", time.monotonic() + 60
    while not path.exists() or "PID" not in path.read_text():
        assert time.monotonic() < deadline, "Timed out."
        time.sleep(0.02)
    return dict(pair.split("=") for pair in path.read_text().split())


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - Not a file of ours.
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_every_rank_knows_its_place_and_where_to_meet(launch, tmp_path):
    assert launch("end").wait(60) == 0
    first, second = variables(tmp_path, 0), variables(tmp_path, 1)
    assert (first["RANK"], second["RANK"]) == ("0", "1") == (first["LOCAL_RANK"], second["LOCAL_RANK"])
    assert first["WORLD_SIZE"] == first["LOCAL_WORLD_SIZE"] == "2"
    assert (first["MASTER_ADDR"], first["MASTER_PORT"]) == (second["MASTER_ADDR"], second["MASTER_PORT"])


def test_a_killed_rank_ends_all_and_the_launcher_ends_as_it_did(launch, tmp_path):
    process = launch("wait")
    pids = [int(variables(tmp_path, rank)["PID"]) for rank in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert is_gone(pids[0])


def test_a_rank_that_fails_ends_all_with_its_status(launch):
    started = time.monotonic()
    assert launch("fail").wait(60) == 2
    assert time.monotonic() - started < 50


def test_a_signal_reaches_every_rank(launch, tmp_path):
    process = launch("wait")
    for rank in (0, 1):
        variables(tmp_path, rank)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
