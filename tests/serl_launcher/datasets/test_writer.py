import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from serl_launcher.datasets import tables
from serl_launcher.datasets.layout import DatasetLayout
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError, ProtocolError, SpecMismatch
from serl_launcher.events import EpisodeLabelled
from serl_launcher.types import Outcome, Source
from tests.recorded_episodes import action_of, make_episode, robot

SPEC = robot(size=8, cameras=1)


def data(root: Path, episode: int) -> list[dict]:
    return pq.ParquetFile(DatasetLayout(root).data_file(episode)).read().to_pylist()


def metadata(root: Path, episode: int) -> dict:
    return pq.ParquetFile(DatasetLayout(root).metadata_file(0)).read().to_pylist()[episode]


def label(number: int, outcome: Outcome) -> EpisodeLabelled:
    return EpisodeLabelled(f"a-1-{number}", outcome, "human", 9.0)


class StageError(Exception):
    """A test stopped the writer."""


def failing_at(stage: str):
    def reached(name: str) -> None:
        if name == stage:
            raise StageError(stage)

    return reached


def test_nothing_is_made_before_the_first_episode(tmp_path: Path) -> None:
    DatasetWriter(tmp_path / "replay", SPEC)
    assert not (tmp_path / "replay").exists()


def test_jpeg_bytes_are_stored_as_recorded(tmp_path: Path) -> None:
    episode = make_episode(SPEC, 0, 3)
    DatasetWriter(tmp_path, SPEC).append(episode)
    stored = [row["observation.images.cam_0"]["bytes"] for row in data(tmp_path, 0)]
    assert stored == [step.observation.images["cam_0"] for step in episode.steps]


def test_steps_are_numbered_through_the_dataset(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    assert [writer.append(make_episode(SPEC, number, 2)) for number in range(3)] == [0, 1, 2]
    rows = [row for episode in range(3) for row in data(tmp_path, episode)]
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["frame_index"] for row in rows] == [0, 1] * 3
    assert [row["timestamp"] for row in rows[:2]] == pytest.approx([0.0, 0.1])


def test_an_episode_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    assert writer.append(make_episode(SPEC, 0, 2)) == writer.append(make_episode(SPEC, 0, 2)) == 0
    assert (writer.num_episodes, writer.num_steps) == (1, 2)


def test_a_reopened_dataset_goes_on_where_it_was(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 2, prompt="one"))
    writer = DatasetWriter(tmp_path, SPEC)
    assert writer.append(make_episode(SPEC, 1, 3, prompt="two")) == 1
    assert [row["task_index"] for row in data(tmp_path, 1)] == [1, 1, 1]
    assert json.loads(DatasetLayout(tmp_path).info.read_text())["total_frames"] == 5


@pytest.mark.parametrize(("end", "done", "truncated"), [("terminated", 1, 0), ("truncated", 1, 1), ("stopped", 0, 0)])
def test_the_end_of_an_episode_is_told_exactly(tmp_path: Path, end: str, done: int, truncated: int) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 2, end=end))
    rows = data(tmp_path, 0)
    assert [row["next.done"] for row in rows] == [False, bool(done)]
    assert [row["next.truncated"] for row in rows] == [False, bool(truncated)]


def test_an_overridden_proposal_is_kept_beside_the_executed_action(tmp_path: Path) -> None:
    episode = make_episode(SPEC, 0, 2, sources=[Source.POLICY, Source.HUMAN])
    proposal = np.array([9, 8, 7], np.float32)
    episode.steps[1] = msgspec.structs.replace(episode.steps[1], proposal=proposal.tobytes())
    DatasetWriter(tmp_path, SPEC).append(episode)
    rows = data(tmp_path, 0)
    assert [row["has_proposal"] for row in rows] == [False, True]
    np.testing.assert_array_equal(rows[1]["proposal"], proposal)
    np.testing.assert_array_equal(rows[1]["action"], action_of(0, 1))
    assert metadata(tmp_path, 0)["num_intervention_steps"] == 1


def test_metadata_says_who_recorded_and_who_judged(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 1, 2))
    row = metadata(tmp_path, 0)
    wanted = {"episode_id": "a-1-1", "actor_id": "a", "seed": 1, "outcome": "success", "labelled_by": "script"}
    assert wanted.items() <= row.items()
    assert row["episode_return"] == 1.0


def test_a_late_label_changes_that_episode_and_nothing_else(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, SPEC)
    for number in range(2):
        writer.append(make_episode(SPEC, number, 2, outcome=Outcome.UNLABELLED))
    before = data(tmp_path, 0)
    other = DatasetLayout(tmp_path).data_file(1).read_bytes()

    writer.relabel("a-1-0", label(0, Outcome.SUCCESS))

    assert [row.pop("next.success") for row in data(tmp_path, 0)] == [False, True]
    assert [{**row, "next.success": None} for row in data(tmp_path, 0)] == [
        {**row, "next.success": None} for row in before
    ]
    row = metadata(tmp_path, 0)
    assert (row["outcome"], row["labelled_by"], row["label_wall_time_s"]) == ("success", "human", 9.0)
    assert DatasetLayout(tmp_path).data_file(1).read_bytes() == other
    stats = json.loads(DatasetLayout(tmp_path).stats.read_text())["next.success"]
    assert stats["mean"] == [0.25]


@pytest.mark.parametrize("labelled_by", ["script", "human"])
def test_a_label_taken_back_after_a_crash_is_taken_back_from_the_steps(tmp_path: Path, labelled_by: str) -> None:
    writer = DatasetWriter(tmp_path, SPEC, reached=failing_at("relabel_steps"))
    writer.append(make_episode(SPEC, 0, 2, outcome=Outcome.FAILURE))
    with pytest.raises(StageError):
        writer.relabel("a-1-0", label(0, Outcome.SUCCESS))
    writer.close()
    assert [row["next.success"] for row in data(tmp_path, 0)] == [False, True]

    DatasetWriter(tmp_path, SPEC).relabel("a-1-0", EpisodeLabelled("a-1-0", Outcome.FAILURE, labelled_by, 9.0))

    assert [row["next.success"] for row in data(tmp_path, 0)] == [False, False]
    assert metadata(tmp_path, 0)["outcome"] == "failure"


def test_a_label_for_an_unknown_episode_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="a-1-5"):
        DatasetWriter(tmp_path, SPEC).relabel("a-1-5", label(5, Outcome.SUCCESS))


@pytest.mark.parametrize("stage", ["final", "steps", "tasks", "episode", "statistics"])
def test_a_write_that_failed_is_repeated_without_a_trace(tmp_path: Path, stage: str) -> None:
    writer = DatasetWriter(tmp_path, SPEC, reached=failing_at(stage))
    with pytest.raises(StageError):
        writer.append(make_episode(SPEC, 0, 3))
    writer._reached = lambda _: None
    assert writer.append(make_episode(SPEC, 0, 3)) == 0
    assert (writer.num_episodes, writer.num_steps) == (1, 3)
    assert not (tmp_path / "set_aside").exists()
    assert json.loads(DatasetLayout(tmp_path).stats.read_text())["action"]["count"] == [3]


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first, late = DatasetWriter(tmp_path / "d", SPEC), DatasetWriter(tmp_path / "d", SPEC)
    first.append(make_episode(SPEC, 0, 2))
    with pytest.raises(DatasetError, match=f"the process {os.getpid()} on this machine uses it"):
        DatasetWriter(tmp_path / "d", SPEC)
    with pytest.raises(DatasetError, match="uses it"):
        late.append(make_episode(SPEC, 1, 2))
    first.close()
    assert late.append(make_episode(SPEC, 1, 2)) == 1


def test_files_of_an_unfinished_episode_are_put_aside_not_deleted(tmp_path: Path) -> None:
    with pytest.raises(StageError):
        DatasetWriter(tmp_path, SPEC, reached=failing_at("steps")).append(make_episode(SPEC, 0, 3))
    assert DatasetWriter(tmp_path, SPEC).num_episodes == 0
    assert {path.parent.name for path in (tmp_path / "set_aside").rglob("*.unfinished")} == {
        "data",
        "final_observations",
    }


def test_another_robot_s_dataset_is_refused(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 2))
    with pytest.raises(SpecMismatch, match="same robot config"):
        DatasetWriter(tmp_path, robot(size=16, cameras=1))


def test_a_missing_file_of_a_counted_episode_is_an_error(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, SPEC).append(make_episode(SPEC, 0, 2))
    DatasetLayout(tmp_path).data_file(0).unlink()
    with pytest.raises(DatasetError, match="episode 0"):
        DatasetWriter(tmp_path, SPEC)


def test_steps_with_a_gap_are_refused(tmp_path: Path) -> None:
    episode = make_episode(SPEC, 0, 4)
    del episode.steps[1]
    with pytest.raises(DatasetError, match="expected step 1, got 2"):
        DatasetWriter(tmp_path, SPEC).append(episode)


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"reward": float("nan")}, "next.reward is not finite at step 1: nan"),
        ({"reward": 1e300}, "next.reward is not finite at step 1: inf"),
        ({"action": np.array([0, np.nan, 0], "<f4").tobytes()}, "action is not finite at step 1"),
        ({"policy_version": 2**63}, "policy_version to fit 64 bits at step 1"),
    ],
)
def test_values_that_a_column_cannot_hold_are_refused(tmp_path: Path, values: dict, refusal: str) -> None:
    episode = make_episode(SPEC, 0, 3)
    episode.steps[1] = msgspec.structs.replace(episode.steps[1], **values)
    writer = DatasetWriter(tmp_path, SPEC)
    with pytest.raises(DatasetError, match=f"'a-1-0'.*{refusal}"):
        writer.append(episode)
    assert writer.append(make_episode(SPEC, 1, 3)) == 0
    assert "null" not in DatasetLayout(tmp_path).stats.read_text()


def test_a_seed_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    episode = make_episode(SPEC, 0, 3)
    episode.seed = 2**63
    with pytest.raises(DatasetError, match="seed to fit 64 bits"):
        DatasetWriter(tmp_path, SPEC).append(episode)


def test_statistics_that_a_former_version_left_empty_are_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode = make_episode(SPEC, 0, 3)
    episode.steps[1] = msgspec.structs.replace(episode.steps[1], reward=float("nan"))
    with monkeypatch.context() as patch:
        patch.setattr(tables, "check_finite", lambda *_: None)
        writer = DatasetWriter(tmp_path, SPEC)
        writer.append(episode)
        writer.close()
    stats = DatasetLayout(tmp_path).stats
    assert json.loads(stats.read_text())["next.reward"]["mean"] == [None]

    writer = DatasetWriter(tmp_path, SPEC)
    assert "next.reward" not in json.loads(stats.read_text())
    assert [writer.append(make_episode(SPEC, number, 4)) for number in (1, 2)] == [1, 2]
    assert json.loads(stats.read_text())["next.reward"]["mean"] == [0.25]
    assert json.loads(stats.read_text())["action"]["count"] == [11]


def test_a_damaged_image_is_refused_before_the_episode_counts(tmp_path: Path) -> None:
    episode = make_episode(SPEC, 0, 2)
    episode.steps[1].observation.images["cam_0"] = b"\xff\xd8 no picture"
    writer = DatasetWriter(tmp_path, SPEC)
    with pytest.raises(ProtocolError):
        writer.append(episode)
    assert writer.num_episodes == 0
    assert writer.append(make_episode(SPEC, 1, 2)) == 0
