"""A dataset that was recorded through the sockets is used by LeRobot's own tools as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from learner.server.sealing import Sealer
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeEnded, EpisodeStarted
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot, state_of
from tests.transport_rig import client, learner, spool, wait_until

SPEC = robot(size=32, cameras=2)
LENGTHS = (5, 7, 4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF_LEROBOT_HOME with the dataset test/replay, which an actor recorded and a learner sealed."""
    pytest.importorskip("lerobot")
    root = tmp_path_factory.mktemp("home")
    with learner(root / "run") as serving, spool(root / "run") as events:
        with client(serving.config, events, spec=SPEC) as actor:
            for number, length in enumerate(LENGTHS):
                record = make_episode(SPEC, number, length, prompt=f"prompt {number}")
                events.append(EpisodeStarted(record.episode_id, record.prompt, 1.0, number))
                for step in record.steps:
                    events.append(step)
                end = EpisodeEnded(record.episode_id, length, record.final_observation, Outcome.SUCCESS, "script", 2.0)
                events.append(end)
            assert actor.flush(60)
        assert wait_until(lambda: len(serving.journal.closed_episodes()) == len(LENGTHS), 30)
        writer = DatasetWriter(root / "test" / "replay", SPEC)
        assert Sealer(serving.journal, writer).run_once() == len(LENGTHS)
    return root


def run_tools(home: Path, *tools: str) -> dict:
    report = home / f"{'-'.join(tools)}.json"
    environment = {
        **os.environ,
        "HF_LEROBOT_HOME": str(home),
        "HF_DATASETS_CACHE": str(home / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("run_lerobot_tools.py")), str(report)]
    done = subprocess.run([*command, *tools], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(report.read_text())


def states(*episodes: int) -> list[list[float]]:
    return [state_of(episode, step).tolist() for episode in episodes for step in range(LENGTHS[episode])]


@pytest.mark.timeout(900)
def test_it_is_read_merged_and_edited(home: Path) -> None:
    found = run_tools(home, "read", "merge", "edit")
    assert found["read"]["states"] == states(0, 1, 2)
    assert found["read"]["tasks"] == [f"prompt {episode}" for episode, n in enumerate(LENGTHS) for _ in range(n)]
    assert found["merge"]["num_episodes"] == 2 * len(LENGTHS)
    assert found["merge"]["states"] == states(0, 1, 2, 0, 1, 2)
    assert found["edit"]["num_episodes"] == len(LENGTHS) - 1
    assert found["edit"]["states"] == states(1, 2)
    assert found["edit"]["tasks"] == [f"prompt {episode}" for episode in (1, 2) for _ in range(LENGTHS[episode])]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_is_shown_and_trained_on(home: Path) -> None:
    found = run_tools(home, "viz", "train")
    assert found["viz"]["files"] == [".rrd"]
    assert "000002" in found["train"]["checkpoints"]
