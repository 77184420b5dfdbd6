"""Stock LeRobot opens what we write: while it grows, and after a kill at any stage of writing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serl_launcher import failpoints
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome
from tests.process_death import dies
from tests.recorded_episodes import image_of, make_episode, robot, state_of
from tests.serl_launcher.datasets.open_with_lerobot import open_with_lerobot

pytest.importorskip("lerobot")

PLACES = tuple(f"seal {stage}" for stage in (
    "final", "steps", "robot", "tasks", "episode", "statistics", "info", "relabel_steps", "relabel_episode"
))  # fmt: skip


def _environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path.cwd()),
    }


@pytest.mark.timeout(300)
def test_every_episode_is_readable_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    spec = robot()
    writer = DatasetWriter(tmp_path / "live", spec)
    snapshots = []
    for number in range(3):
        writer.append(make_episode(spec, number, 4 + number, prompt=f"prompt {number}"))
        snapshots.append(tmp_path / f"snapshot-{number}")
        shutil.copytree(tmp_path / "live", snapshots[-1])
    writer.relabel("a-1-2", EpisodeLabelled("a-1-2", Outcome.FAILURE, "human", 1.0))

    *found, relabelled = open_with_lerobot([*snapshots, tmp_path / "live"])

    assert [one["num_steps"] for one in found] == [4, 9, 15]
    assert [one["last_task"] for one in found] == ["prompt 0", "prompt 1", "prompt 2"]
    assert [one["last_state"] for one in found] == [state_of(n, 3 + n).tolist() for n in range(3)]
    assert all(one["indices"] == list(range(one["num_steps"])) for one in found)
    assert all(one["last_success"] and one["stats_count"] == one["num_steps"] for one in found)
    assert found[2]["last_image_mean"] == pytest.approx(image_of(spec, 0, 2, 5)[0, 0].tolist(), abs=2)
    assert found[2]["last_action_is_pad"] == [False, True]
    assert not relabelled["last_success"]
    assert relabelled["outcomes"] == ["success", "success", "failure"]


@pytest.mark.timeout(300)
def test_dataset_opens_after_a_kill_at_any_stage_and_goes_on_from_there(tmp_path: Path) -> None:
    roots = [tmp_path / place.removeprefix("seal ") for place in PLACES]
    for root, place in zip(roots, PLACES, strict=True):
        dies(lambda root=root: write_and_relabel(root), place)
    after_kill = [root.with_name(f"{root.name}-killed") for root in roots]
    for root, copy in zip(roots, after_kill, strict=True):
        shutil.copytree(root, copy)
        spec = robot()
        writer = DatasetWriter(root, spec)
        if root.name.startswith("relabel"):
            writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.SUCCESS, "human", 5.0))
        assert writer.append(make_episode(spec, 1, 4, prompt="another")) == 1
        assert not list(root.rglob("*.tmp"))

    found = open_with_lerobot([*after_kill, *roots])

    for stage, killed, repaired in zip(
        (root.name for root in roots), found[: len(roots)], found[len(roots) :], strict=True
    ):
        assert killed["num_steps"] == (9 if stage == "info" else 5), stage
        assert (repaired["num_episodes"], repaired["num_steps"], repaired["stats_count"]) == (2, 9, 9), stage
        first = "success" if stage.startswith("relabel") else "failure"
        assert repaired["outcomes"] == [first, "success"], stage
        assert repaired["last_task"] == "another", stage


def write_and_relabel(root: Path) -> None:
    """Writes an episode, then (where a test lets it die there) corrects its label and writes another."""
    spec = robot()
    DatasetWriter(root, spec).append(make_episode(spec, 0, 5, outcome=Outcome.FAILURE))
    writer = DatasetWriter(root, spec, reached=lambda stage: failpoints.reached(f"seal {stage}"))
    if root.name.startswith("relabel"):
        writer.relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.SUCCESS, "human", 5.0))
    writer.append(make_episode(spec, 1, 4, prompt="another"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_dataset_viz_writes_a_recording(tmp_path: Path) -> None:
    spec = robot()
    DatasetWriter(tmp_path / "live", spec).append(make_episode(spec, 0, 6))
    command = [sys.executable, "-m", "lerobot.scripts.lerobot_dataset_viz", "--repo-id", "test/replay", "--root"]
    command += [str(tmp_path / "live"), "--episode-index", "0", "--num-workers", "0"]
    command += ["--save", "1", "--output-dir", str(tmp_path / "viz")]
    done = subprocess.run(command, env=_environment(tmp_path), capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.suffix for path in (tmp_path / "viz").iterdir()] == [".rrd"]
