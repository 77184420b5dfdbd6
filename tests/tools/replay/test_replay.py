import json
from pathlib import Path

import numpy as np
import pytest

from learner.replay.chunks import ChunkSampler
from learner.replay.reader import ReplayDataset
from serl_launcher.datasets.layout import DatasetLayout, read_table, write_parquet
from serl_launcher.datasets.tables import with_success
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError, HiorsError
from serl_launcher.journal import Journal
from serl_launcher.storage import DirectoryLock
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import image_of, make_episode, robot, state_of
from tools.replay import rewriting
from tools.replay.__main__ import main
from tools.replay.verify import problems

SPEC = robot(size=64, cameras=1)
OUTCOMES = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.UNLABELLED]
LENGTHS = [3, 4, 2, 5]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of four episodes in a run directory."""
    writer = DatasetWriter(tmp_path / "run" / "replay", SPEC)
    for number, (outcome, length) in enumerate(zip(OUTCOMES, LENGTHS, strict=True)):
        sources = [Source.POLICY] * (length - 1) + [Source.HUMAN if number == 2 else Source.POLICY]
        writer.append(make_episode(SPEC, number, length, outcome=outcome, sources=sources, prompt=f"prompt {number}"))
    return tmp_path / "run" / "replay"


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def check_episodes(root: Path, numbers: list[int], *, tolerance: float = 2) -> None:
    """The dataset is whole and holds exactly these of the recorded episodes, with their final observations."""
    assert list(problems(root)) == []
    dataset = ReplayDataset(root)
    assert [dataset.episode_id(episode) for episode in range(dataset.num_episodes)] == [f"a-1-{n}" for n in numbers]
    for episode, number in enumerate(numbers):
        first, length = int(dataset.episodes.first_step[episode]), LENGTHS[number]
        assert dataset.episodes.length[episode] == length
        assert dataset.episodes.outcome[episode] == OUTCOMES[number]
        np.testing.assert_array_equal(dataset.steps.state[first + length - 1], state_of(number, length - 1))
        np.testing.assert_array_equal(dataset.final_state(episode), state_of(number, length))
        assert dataset.prompts[dataset.steps.task_index[first]] == f"prompt {number}"
        for step in (0, length - 1):
            shown = dataset.image(first + step, "cam_0").astype(int)
            assert np.abs(shown - image_of(SPEC, 0, number, step)).max() <= tolerance
        final = dataset.final_image(episode, "cam_0").astype(int)
        assert np.abs(final - image_of(SPEC, 0, number, length)).max() <= 2


@pytest.mark.parametrize(
    "arguments",
    [["repair"], ["compact"], ["prune", "--outcome", "failure"], ["relabel", "1", "success"]],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_changed_without_yes(root: Path, arguments: list[str]) -> None:
    before = content(root.parent)
    assert main([arguments[0], str(root), *arguments[1:]]) == 0
    assert content(root.parent) == before


def test_a_compacted_dataset_holds_the_same_in_fewer_files(root: Path) -> None:
    before = content(root)
    assert main(["compact", str(root), "--yes"]) == 0
    assert len(list((root / "data").rglob("*.parquet"))) == 1
    check_episodes(root, [0, 1, 2, 3])
    (kept,) = root.parent.glob("replay.before-compact-*")
    assert content(kept) == before


def test_a_compacted_dataset_is_recorded_to_and_labelled_as_before(root: Path) -> None:
    main(["compact", str(root), "--yes"])
    main(["relabel", str(root), "1", "success", "--yes"])
    assert DatasetWriter(root, SPEC).append(make_episode(SPEC, 4, 3)) == 4
    dataset = ReplayDataset(root)
    assert dataset.episodes.outcome.tolist() == ["success", "success", "success", "unlabelled", "success"]
    assert dataset.num_steps == sum(LENGTHS) + 3
    assert list(problems(root)) == []
    np.testing.assert_array_equal(dataset.final_state(4), state_of(4, 3))


def test_pruning_keeps_what_it_leaves_out_beside_the_dataset(root: Path) -> None:
    before = content(root)
    assert main(["prune", str(root), "--outcome", "failure", "unlabelled", "--yes"]) == 0
    check_episodes(root, [0, 2])
    (kept,) = root.parent.glob("replay.before-prune-*")
    assert content(kept) == before


def test_pruning_to_the_newest_steps_keeps_whole_episodes(root: Path) -> None:
    assert main(["prune", str(root), "--newest", "6", "--yes"]) == 0
    check_episodes(root, [2, 3])


def test_relabelling_by_id_changes_one_episode(root: Path) -> None:
    assert main(["relabel", str(root), "a-1-3", "failure", "--by", "me", "--yes"]) == 0
    assert ReplayDataset(root).episodes.outcome.tolist() == ["success", "failure", "success", "failure"]


def test_an_unknown_episode_is_an_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relabel", str(root), "17", "failure", "--yes"]) == 1
    assert "0 to 3" in capsys.readouterr().err


def test_a_dataset_in_use_by_a_learner_is_not_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(root)
    lock = DirectoryLock(root.parent / "journal", error=DatasetError)
    for arguments in (["compact"], ["prune", "--outcome", "failure"], ["relabel", "1", "success"]):
        assert main([arguments[0], str(root), *arguments[1:], "--yes"]) == 1
        assert "Stop it first" in capsys.readouterr().err
    assert content(root) == before
    lock.release()


def test_nobody_else_writes_while_a_dataset_is_rewritten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []
    check_equal = rewriting._check_equal

    def learner_starts(*arguments) -> None:
        for start in (lambda: Journal(root.parent / "journal"), lambda: DatasetWriter(root, SPEC)):
            with pytest.raises(DatasetError, match="on this machine uses it"):
                start()
            refused.append(start)
        check_equal(*arguments)

    Journal(root.parent / "journal").close()
    monkeypatch.setattr(rewriting, "_check_equal", learner_starts)
    assert main(["compact", str(root), "--yes"]) == 0
    assert len(refused) == 2
    assert DatasetWriter(root, SPEC).append(make_episode(SPEC, 4, 3)) == 4
    Journal(root.parent / "journal").close()


@pytest.mark.parametrize("view", ["successful", "interventions"])
def test_a_view_is_exported_as_a_dataset(root: Path, tmp_path: Path, view: str) -> None:
    before = content(root)
    assert main(["export", str(root), str(tmp_path / "out"), "--view", view]) == 0
    check_episodes(tmp_path / "out", {"successful": [0, 2], "interventions": [2]}[view])
    assert content(root) == before
    assert main(["export", str(root), str(tmp_path / "out"), "--view", view]) == 1


def test_pictures_are_exported_as_video(root: Path, tmp_path: Path) -> None:
    assert main(["export", str(root), str(tmp_path / "out"), "--view", "to-video"]) == 0
    info = json.loads(DatasetLayout(tmp_path / "out").info.read_text())
    assert info["features"]["observation.images.cam_0"]["dtype"] == "video"
    check_episodes(tmp_path / "out", [0, 1, 2, 3], tolerance=12)
    batch = ChunkSampler(ReplayDataset(tmp_path / "out"), horizon=2, cameras=("cam_0",), with_next=True).sample(
        np.array([0, 6, 13])
    )
    assert batch.next_images is not None
    assert np.abs(batch.next_images[2, 0].astype(int) - image_of(SPEC, 0, 3, 5)).max() <= 12


class StoppedError(HiorsError):
    """A test stopped a rewrite, as a kill would."""


@pytest.mark.parametrize("at", ["copy", "first rename", "second rename"])
def test_a_rewrite_that_was_cut_off_loses_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    before = content(root)
    renames = []
    rename = Path.rename

    def counted(path: Path, target: Path) -> Path:
        renames.append(path)
        if at == ("first rename", "second rename")[len(renames) - 1]:
            raise StoppedError(at)
        return rename(path, target)

    with monkeypatch.context() as patch:
        if at == "copy":
            patch.setattr("serl_launcher.datasets.copying.aggregate_rows", _stop)
        else:
            patch.setattr(Path, "rename", counted)
        assert main(["compact", str(root), "--yes"]) == 1

    if at == "second rename":
        assert not root.exists()
        assert main(["repair", str(root), "--yes"]) == 0
        assert len(list((root / "data").rglob("*.parquet"))) == 1
    else:
        assert content(root) == before
        assert main(["compact", str(root), "--yes"]) == 0
    check_episodes(root, [0, 1, 2, 3])
    assert not rewriting.unfinished_copy(root).exists()
    assert len(list(root.parent.glob("replay.before-compact-*"))) == 1


def _stop(*_arguments: object) -> None:
    raise StoppedError("copy")


def test_repair_finishes_what_a_crash_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = DatasetLayout(root)
    info = layout.info.read_bytes()
    DatasetWriter(root, SPEC).append(make_episode(SPEC, 4, 2, prompt="prompt 4"))
    layout.info.write_bytes(info)
    (root / "data" / "chunk-000" / ".file-005.parquet.1.tmp").write_bytes(b"cut off")
    layout.data_file(5).write_bytes(b"cut off too")

    assert main(["repair", str(root)]) == 0
    said = capsys.readouterr().out
    assert "Episode 4 (a-1-4) is not counted yet" in said
    assert ".file-005.parquet.1.tmp" in said
    assert "belongs to no episode" in said
    assert main(["repair", str(root), "--yes"]) == 0

    assert ReplayDataset(root).num_episodes == 5
    assert list(problems(root)) == []
    assert [path.read_bytes() for path in (root / "set_aside").rglob("*.unfinished")] == [b"cut off too"]
    assert main(["repair", str(root)]) == 0
    assert "needs no repair" in capsys.readouterr().out


@pytest.mark.parametrize(("stage", "num_episodes"), [("tasks", 0), ("episode", 1), ("statistics", 1)])
def test_repair_finishes_a_first_episode_that_was_cut_off(tmp_path: Path, stage: str, num_episodes: int) -> None:
    def reached(name: str) -> None:
        if name == stage:
            raise StoppedError(stage)

    with pytest.raises(StoppedError):
        DatasetWriter(tmp_path / "replay", SPEC, reached=reached).append(make_episode(SPEC, 0, 3))
    assert main(["repair", str(tmp_path / "replay"), "--yes"]) == 0
    assert main(["repair", str(tmp_path / "replay")]) == 0
    assert ReplayDataset(tmp_path / "replay").num_episodes == num_episodes
    assert DatasetWriter(tmp_path / "replay", SPEC).append(make_episode(SPEC, 0, 3)) == 0


def test_a_directory_that_nobody_recorded_to_is_not_repaired(tmp_path: Path) -> None:
    assert main(["repair", str(tmp_path)]) == 1


def test_repair_makes_steps_say_what_the_label_says(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = DatasetLayout(root).data_file(1)
    write_parquet(path, with_success(read_table(path), 1, is_success=True))  # As a crash amid a correction leaves it.
    assert [problem[:30] for problem in problems(root)] == ["Episode 1 is labelled failure,"]
    assert main(["repair", str(root), "--yes"]) == 0
    assert "Episode 1 is labelled failure" in capsys.readouterr().out
    check_episodes(root, [0, 1, 2, 3])


def test_repair_computes_statistics_anew(root: Path) -> None:
    layout = DatasetLayout(root)
    wanted = json.loads(layout.stats.read_text())["action"]
    layout.stats.write_text('{"action": {"count": [1]}}')
    assert main(["repair", str(root), "--yes"]) == 0
    assert json.loads(layout.stats.read_text())["action"]["mean"] == pytest.approx(wanted["mean"])
