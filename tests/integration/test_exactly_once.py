"""What was recorded enters the journal once, whoever is killed, and whatever the disk does meanwhile."""

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actor.spool import Spool
from serl_launcher.errors import Refused
from serl_launcher.events import EpisodeEnded
from serl_launcher.journal import Journal
from serl_launcher.types import Outcome
from tests.actor.free_ports import free_ports
from tests.transport_rig import QUICK, client, encoded, episode, spool, wait_until

NUM_KILLS = 7


@pytest.fixture(name="start")
def fixture_start():
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "tests.integration.transport_processes", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_kills_of_either_side_lose_double_and_reorder_nothing(tmp_path, start):
    ports = free_ports(2)
    sides = {"serve": (tmp_path, *ports, 0), "record": (tmp_path, *ports)}
    running = {name: start(name, *arguments) for name, arguments in sides.items()}
    draw = random.Random(7)
    for kill in range(1, NUM_KILLS + 1):
        assert wait_until(lambda wanted=80 * kill: num_noted(tmp_path) >= wanted, 30)
        time.sleep(draw.uniform(0.0, 0.4))
        victim = draw.choice(sorted(sides))
        running[victim].kill()
        running[victim].wait()
        running[victim] = start(victim, *sides[victim])
    running["record"].kill()
    running["record"].wait()
    deliver_the_rest(tmp_path, ports)
    running["serve"].kill()
    running["serve"].wait()

    noted = [int(line) for line in (tmp_path / "history").read_text().split()]
    journal = Journal(tmp_path / "journal")
    records = [journal.read_episode(episode_id) for episode_id in journal.closed_episodes()]
    journal.close()
    committed = [int(each.reward) for record in records for each in record.steps]
    assert len(noted) >= 80 * NUM_KILLS
    assert committed == sorted(set(committed))
    assert set(noted) <= set(committed)
    assert len(set(committed) - set(noted)) <= NUM_KILLS + 1
    assert all([each.step for each in record.steps] == list(range(len(record.steps))) for record in records)


def num_noted(root):
    history = root / "history"
    return history.read_text().count("\n") if history.exists() else 0


def deliver_the_rest(root, ports):
    """Does what the recorder of a restarted actor does, then waits until the learner has everything."""
    config = dataclasses.replace(QUICK, request_port=ports[0], broadcast_port=ports[1])
    source = Spool(root / "spool", max_bytes=2**30)
    for episode_id, num_steps in source.open_episodes():
        source.append(EpisodeEnded(episode_id, num_steps, encoded(), Outcome.ABORTED, "", 0.0))
    with client(config, source) as actor:
        assert actor.flush(30)
    source.close()


def test_a_full_disk_of_the_learner_pauses_and_resumes(tmp_path, start, caplog):
    ports = free_ports(2)
    server = start("serve", tmp_path, *ports, 400_000)
    config = dataclasses.replace(QUICK, request_port=ports[0], broadcast_port=ports[1])
    with spool(tmp_path) as source, client(config, source) as actor:
        assert wait_until(lambda: actor.is_connected, 20)
        for number in range(10):
            for event in episode(f"e-{number}", 60):
                source.append(event)
        # Requests under way behind the refused one are refused as gaps, which must not hide the reason.
        assert wait_until(lambda: "cannot write its journal" in str(actor.last_error), 10)
        assert isinstance(actor.last_error, Refused)
        assert "events are missing" not in caplog.text
        assert wait_until(lambda: actor.announcement is not None and actor.announcement.paused, 5)
        assert not actor.flush(0.5)
        server.send_signal(signal.SIGUSR1)
        assert actor.flush(20)
        assert wait_until(lambda: actor.announcement is not None and not actor.announcement.paused, 5)
    server.kill()
    server.wait()
    journal = Journal(tmp_path / "journal")
    assert journal.counts().num_steps == 600
    assert journal.counts().num_episodes == 10
    journal.close()
