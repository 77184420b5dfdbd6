"""Stock LeRobot opens what `tools.replay` makes of a dataset."""

import shutil
from pathlib import Path

import pytest

from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.types import Outcome
from tests.recorded_episodes import image_of, make_episode, robot
from tests.serl_launcher.datasets.open_with_lerobot import open_with_lerobot
from tools.replay.__main__ import main

pytest.importorskip("lerobot")

SPEC = robot(size=64, cameras=1)
OUTCOMES = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.UNLABELLED]


@pytest.mark.timeout(300)
def test_rewritten_and_exported_datasets_open(tmp_path: Path) -> None:
    root = tmp_path / "run" / "replay"
    writer = DatasetWriter(root, SPEC)
    for number, outcome in enumerate(OUTCOMES):
        writer.append(make_episode(SPEC, number, 3 + number, outcome=outcome, prompt=f"prompt {number}"))
    writer.close()
    for view in ("successful", "to-video"):
        assert main(["export", str(root), str(tmp_path / view), "--view", view]) == 0
    assert main(["compact", str(root), "--yes"]) == 0
    shutil.copytree(root, tmp_path / "compacted")
    assert main(["relabel", str(root), "1", "success", "--yes"]) == 0
    DatasetWriter(root, SPEC).append(make_episode(SPEC, 4, 3))
    shutil.copytree(root, tmp_path / "continued")
    assert main(["prune", str(root), "--outcome", "unlabelled", "--yes"]) == 0

    successful, video, compacted, continued, pruned = open_with_lerobot(
        [*(tmp_path / name for name in ("successful", "to-video", "compacted", "continued")), root]
    )

    assert [successful["outcomes"], successful["num_steps"]] == [["success"] * 2, 8]
    assert [compacted["outcomes"], compacted["num_steps"]] == [OUTCOMES, 18]
    assert [continued["outcomes"], continued["num_steps"]] == [["success"] * 3 + ["unlabelled", "success"], 21]
    assert [pruned["outcomes"], pruned["num_steps"]] == [["success"] * 4, 15]
    assert [video["outcomes"], video["num_steps"]] == [OUTCOMES, 18]
    for found in (successful, video, compacted, continued, pruned):
        assert found["indices"] == list(range(found["num_steps"]))
        assert found["stats_count"] == found["num_steps"]
    assert [compacted["last_task"], successful["last_task"]] == ["prompt 3", "prompt 2"]
    assert video["last_image_mean"] == pytest.approx(image_of(SPEC, 0, 3, 5)[0, 0].tolist(), abs=12)
