from pathlib import Path

import pytest

from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot
from tools.replay.__main__ import main
from tools.replay.verify import problems

SPEC = robot(size=8, cameras=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    writer = DatasetWriter(tmp_path, SPEC)
    writer.append(make_episode(SPEC, 0, 3))
    writer.append(make_episode(SPEC, 1, 2, outcome=Outcome.FAILURE))
    return tmp_path


def test_a_whole_dataset_has_no_problems(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(root)]) == 0
    assert "whole" in capsys.readouterr().out


def test_a_damaged_image_is_found(root: Path) -> None:
    path = DatasetLayout(root).data_file(1)
    content = path.read_bytes()
    image = make_episode(SPEC, 1, 2).steps[1].observation.images["cam_0"]
    assert image in content
    path.write_bytes(content.replace(image, b"x" * len(image)))
    assert [problem[:18] for problem in problems(root)] == ["Step 4, camera cam"]


def test_a_missing_file_is_found(root: Path) -> None:
    DatasetLayout(root).data_file(0).unlink()
    assert len(list(problems(root))) == 1


def test_statistics_over_other_steps_are_found(root: Path) -> None:
    path = DatasetLayout(root).stats
    path.write_text(path.read_text().replace('"count": [\n            5', '"count": [\n            4'))
    assert ["is over 4 steps" in problem for problem in problems(root)] == [True]


def test_stats_say_what_is_in_the_dataset(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(root)]) == 0
    said = capsys.readouterr().out
    assert "2 episodes, 5 steps" in said
    assert "success 1 (50 %)" in said


def test_a_directory_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    assert main(["stats", str(tmp_path)]) == 1
    assert main(["verify", str(tmp_path)]) == 1
