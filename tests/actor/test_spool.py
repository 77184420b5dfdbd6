import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from actor.spool import Spool
from serl_launcher.errors import SessionFenced, SpoolFull
from serl_launcher.events import EpisodeLabelled, EpisodeStarted, encode_event
from serl_launcher.types import Outcome
from tests.transport_rig import episode, spool, step

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

KILLED_ACTOR = """
import os, signal, sys
from pathlib import Path
from actor.spool import Spool
from tests.transport_rig import episode
spool = Spool(Path(sys.argv[1]), max_bytes=2**26)
for event in episode("e-0", 5)[:-1]:
    spool.append(event)
print(spool.epoch, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_events_come_back_in_order_with_their_bytes(tmp_path):
    events = episode("e-0", 3)
    with spool(tmp_path) as opened:
        assert [opened.append(event) for event in events] == [1, 2, 3, 4, 5]
        assert opened.pending(0, 100, 2**20) == [(seq, encode_event(event)) for seq, event in enumerate(events, 1)]
        assert [seq for seq, _ in opened.pending(2, 2, 2**20)] == [3, 4]
        assert [seq for seq, _ in opened.pending(0, 100, 1)] == [1]


def test_acknowledged_events_are_gone_and_the_others_stay(tmp_path):
    with spool(tmp_path) as opened:
        for event in episode("e-0", 3):
            opened.append(event)
        opened.acknowledge(3)
        opened.acknowledge(2)
        assert (opened.num_pending, opened.acknowledged_seq, opened.last_seq) == (2, 3, 5)
        assert [seq for seq, _ in opened.pending(0, 100, 2**20)] == [4, 5]
        with pytest.raises(ValueError, match="up to 5, got 6"):
            opened.acknowledge(6)


def test_sequence_numbers_and_epochs_go_on_across_restarts(tmp_path):
    with spool(tmp_path) as opened:
        first = (opened.epoch, opened.spool_id)
        opened.append(EpisodeStarted("e-0", "reach", 1.0))
        opened.acknowledge(1)
    with spool(tmp_path) as opened:
        assert opened.epoch > first[0]
        assert opened.spool_id == first[1]
        assert (opened.num_pending, opened.pending_bytes) == (0, 0)
        assert opened.append(step("e-0", 0)) == 2


def test_a_spool_made_anew_at_once_is_a_newer_session(tmp_path):
    epochs = []
    for number in range(3):
        with spool(tmp_path / f"disk-{number}") as opened:
            epochs.append(opened.epoch)
        time.sleep(0.002)  # They have milliseconds.
    assert epochs == sorted(set(epochs))


def test_a_killed_process_loses_nothing_and_leaves_its_episode_open(tmp_path):
    command = [sys.executable, "-c", KILLED_ACTOR, str(tmp_path / "spool")]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    opened = Spool(tmp_path / "spool", max_bytes=2**26)
    assert opened.epoch > int(killed.stdout)
    assert opened.num_pending == 6
    assert opened.open_episodes() == [("e-0", 5)]
    assert opened.append(episode("e-0", 5)[-1]) == 7
    assert opened.open_episodes() == []
    opened.close()


def test_two_processes_cannot_share_a_spool(tmp_path):
    with spool(tmp_path) as opened, pytest.raises(SessionFenced, match="uses it"):
        Spool(opened.path, max_bytes=2**20)


def test_events_out_of_order_are_refused_and_leave_no_trace(tmp_path):
    with spool(tmp_path) as opened:
        for event, reason in [(step("e-0", 0), "an open episode"), (episode("e-0", 0)[-1], "an open episode")]:
            with pytest.raises(ValueError, match=reason):
                opened.append(event)
        opened.append(EpisodeStarted("e-0", "reach", 1.0))
        with pytest.raises(ValueError, match="a new episode"):
            opened.append(EpisodeStarted("e-0", "reach", 1.0))
        with pytest.raises(ValueError, match="has 0 steps"):
            opened.append(step("e-0", 1))
        assert (opened.num_pending, opened.open_episodes()) == (1, [("e-0", 0)])


def test_a_full_spool_begins_no_episode_but_ends_the_one_under_way(tmp_path):
    with spool(tmp_path, max_bytes=4000) as opened:
        opened.append(EpisodeStarted("e-0", "reach", 1.0))
        for number in range(5):
            opened.append(step("e-0", number))
        assert opened.is_full
        with pytest.raises(SpoolFull, match="spool_max_bytes"):
            opened.append(EpisodeStarted("e-1", "reach", 1.0))
        opened.append(episode("e-0", 5)[-1])
        assert opened.num_refused == 1
        assert not opened.wait_for_room(0.01)
        opened.acknowledge(5)
        assert opened.wait_for_room(0.01)
        opened.append(EpisodeStarted("e-1", "reach", 1.0))


def test_a_full_spool_set_to_refuse_refuses_every_step(tmp_path):
    with spool(tmp_path, max_bytes=2500, when_full="refuse") as opened:
        opened.append(EpisodeStarted("e-0", "reach", 1.0))
        opened.append(step("e-0", 0))
        opened.append(step("e-0", 1))
        with pytest.raises(SpoolFull):
            opened.append(step("e-0", 2))
        opened.append(episode("e-0", 2)[-1])
        opened.append(EpisodeLabelled("e-0", Outcome.FAILURE, "human", 1.0))


def test_a_damaged_spool_is_set_aside_and_recording_goes_on(tmp_path, caplog):
    with spool(tmp_path) as opened:
        former = opened.spool_id
    (opened.path / "events" / "data.mdb").write_bytes(b"\0" * 8192)
    with spool(tmp_path) as opened:
        assert opened.spool_id != former
        assert opened.append(EpisodeStarted("e-0", "reach", 1.0)) == 1
        assert len(list(opened.path.glob("damaged-*/data.mdb"))) == 1
    assert "set aside" in caplog.text


def test_damage_anywhere_never_keeps_an_actor_from_starting(tmp_path):
    with spool(tmp_path) as opened:
        for event in episode("e-0", 60):
            opened.append(event)
        former = opened.spool_id
    store = opened.path / "events" / "data.mdb"
    content = store.read_bytes()
    results = set()
    for page in range(2, len(content) // PAGE_BYTES):
        store.parent.mkdir(exist_ok=True)
        store.write_bytes(content[: page * PAGE_BYTES] + b"\xff" * PAGE_BYTES + content[(page + 1) * PAGE_BYTES :])
        with spool(tmp_path) as opened:
            is_set_aside = opened.spool_id != former
            assert is_set_aside or len(opened.pending(0, 100, 2**20)) == opened.num_pending == 62
            opened.append(EpisodeStarted(f"e-{page}", "reach", 1.0))
        results.add(is_set_aside)
    assert results == {True, False}, "some pages are free ones, whose damage does not matter"


def test_an_actor_on_a_full_disk_is_told_so_at_its_start(tmp_path):
    with spool(tmp_path) as opened:
        for event in episode("e-0", 60):
            opened.append(event)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * PAGE_BYTES, limits[1]))
    try:
        with pytest.raises(SpoolFull, match="Free disk space"), spool(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with spool(tmp_path) as opened:
        assert opened.num_pending == 62


def test_closing_twice_is_harmless(tmp_path):
    with spool(tmp_path) as opened:
        opened.close()
