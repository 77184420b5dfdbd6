"""The actor as a process of its own, with nobody at the other end of the network."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from actor.__main__ import with_mode
from actor.spool import Spool
from serl_launcher.events import EpisodeEnded, EpisodeStarted, StepRecorded
from serl_launcher.types import Outcome
from tests.actor.free_ports import free_ports
from tests.actor.recording import ended_in, events_in, open_spool, started_in, steps_in

HEAVY = {"torch", "lerobot", "pyarrow", "cv2", "matplotlib", "av", "transformers", "pandas", "datasets"}


def overrides(directory: Path, *more: str) -> list[str]:
    request_port, broadcast_port = free_ports(2)
    return [
        f"output_dir={directory}", "unique_identifier=run", "environment.image_size=[16,16]", "actor.flush_s=0.1",
        f"transport.request_port={request_port}", f"transport.broadcast_port={broadcast_port}", *more,
    ]  # fmt: skip


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "actor", *arguments], stderr=subprocess.PIPE, text=True)


def run(arguments: list[str]) -> str:
    """Runs an actor to its end and returns what it said."""
    with start(arguments) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def kill_after(seconds: float, arguments: list[str], number: signal.Signals, spool: Path) -> int:
    """Starts an actor, waits until it has recorded for that long, sends the signal; returns its exit status."""
    with start(arguments) as process:
        deadline = time.monotonic() + 30
        while not spool.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(seconds)
        os.kill(process.pid, number)
        process.communicate(timeout=30)
    return process.returncode


def reopened(directory: Path) -> Spool:
    return open_spool(directory / "run" / "spool")


def test_the_first_word_may_be_the_mode():
    assert with_mode(["eval", "seed=1"]) == ["seed=1", "actor.mode=eval"]
    assert with_mode(["seed=1"]) == ["seed=1"]
    assert with_mode([]) == []


def test_without_a_learner_a_collection_ends_and_everything_waits_in_the_spool(tmp_path: Path):
    said = run(overrides(tmp_path, "actor.mode=collect", "actor.num_episodes=3"))
    assert "stay in the spool" in said
    with closing(reopened(tmp_path)) as spool:
        assert [event.seed for event in started_in(spool)] == [0, 1, 2]
        assert len(ended_in(spool)) == 3
    status = json.loads((tmp_path / "run" / "status" / "actor-actor-0.json").read_text())
    assert (status["num_episodes"], status["is_connected"]) == (3, False)


def test_a_killed_actor_goes_on_where_it_was_and_loses_nothing(tmp_path: Path):
    arguments = overrides(tmp_path, "actor.mode=collect", "actor.num_episodes=12")
    progress = tmp_path / "run" / "spool" / "actor-0.progress.json"
    assert kill_after(0.3, arguments, signal.SIGKILL, progress) == -signal.SIGKILL
    with closing(reopened(tmp_path)) as spool:
        recorded = [event for event in events_in(spool) if isinstance(event, StepRecorded)]
    assert recorded
    run(arguments)
    with closing(reopened(tmp_path)) as spool:
        assert steps_in(spool)[: len(recorded)] == recorded
        seeds = [event.seed for event in started_in(spool)]
        assert seeds == sorted(set(seeds))
        assert spool.open_episodes() == []
        assert sum(ended.outcome is not Outcome.ABORTED for ended in ended_in(spool)) == 12
        assert_whole(spool)


def assert_whole(spool: Spool) -> None:
    """Every episode has its steps in order and ends with their number."""
    num_steps: dict[str, int] = {}
    for event in events_in(spool):
        if isinstance(event, EpisodeStarted):
            num_steps[event.episode_id] = 0
        elif isinstance(event, StepRecorded):
            assert event.step == num_steps[event.episode_id]
            num_steps[event.episode_id] += 1
        elif isinstance(event, EpisodeEnded):
            assert event.num_steps == num_steps[event.episode_id]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_the_actor_in_order(tmp_path: Path, number: signal.Signals):
    progress = tmp_path / "run" / "spool" / "actor-0.progress.json"
    assert kill_after(0.3, overrides(tmp_path, "actor.mode=collect"), number, progress) == 0
    with closing(reopened(tmp_path)) as spool:
        assert spool.open_episodes() == []
        assert ended_in(spool)[-1].outcome is Outcome.ABORTED


def test_a_simulator_waits_for_its_learner_until_it_is_told_to_stop(tmp_path: Path):
    progress = tmp_path / "run" / "spool" / "actor-0.progress.json"
    assert kill_after(0.5, overrides(tmp_path), signal.SIGINT, progress) == 0
    with closing(reopened(tmp_path)) as spool:
        assert events_in(spool) == []


def test_a_running_default_actor_needs_no_machine_learning_stack(tmp_path: Path):
    program = "import sys; from actor.__main__ import main; main(); print('\\n'.join(sys.modules))"
    arguments = overrides(tmp_path, "actor.mode=collect", "actor.num_episodes=1")
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {module.partition(".")[0] for module in finished.stdout.split()}
    assert "robot_infra" in loaded
    assert not loaded & HEAVY
