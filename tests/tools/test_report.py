from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actor.evaluation_report import EpisodeResult, EvaluationReport, success_by_prompt, success_rate
from serl_launcher.errors import ConfigError
from serl_launcher.types import Outcome
from tools.demo.state import DemoState
from tools.episodes import EpisodeTable, rolling_share
from tools.report import build, closing_lines


def write_episodes(root: Path, outcomes: list[str], interventions: list[int]) -> None:
    folder = root / "meta" / "episodes" / "chunk-000"
    folder.mkdir(parents=True)
    for index, (outcome, steps) in enumerate(zip(outcomes, interventions, strict=True)):
        row = {
            "episode_index": [index], "length": [50], "outcome": [outcome], "num_intervention_steps": [steps],
            "started_wall_time_s": [1000.0 + 10 * index],
        }  # fmt: skip
        pq.write_table(pa.table(row), folder / f"file-{index:03d}.parquet")


def write_evaluation(directory: Path, num_successes: int, num_episodes: int) -> None:
    prompt = "put it there"
    results = [
        EpisodeResult(
            episode=i,
            seed=i,
            prompt=prompt,
            told_prompt=prompt,
            num_steps=40,
            outcome=Outcome.SUCCESS if i < num_successes else Outcome.FAILURE,
        )
        for i in range(num_episodes)
    ]
    report = EvaluationReport(
        checkpoint="somewhere",
        policy_hash="abcdef0123456789",
        environment="sim_pnp",
        first_seed=0,
        noise_seed=0,
        num_lanes=8,
        execution_horizon=8,
        wrong_prompt=False,
        duration_s=1.0,
        overall=success_rate(results),
        by_prompt=success_by_prompt(results),
    )
    directory.mkdir(parents=True)
    (directory / "report.json").write_bytes(msgspec.json.encode(report))


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    write_episodes(tmp_path / "demonstrations", ["success"] * 5, [0] * 5)
    write_episodes(tmp_path / "online", ["failure", "success", "aborted", "success"] * 15, [0, 9, 0, 0] * 15)
    write_evaluation(tmp_path / "eval_sft", 5, 10)
    write_evaluation(tmp_path / "eval_online", 9, 10)
    state = DemoState.open(tmp_path, {"seed": 3})
    state.finish("collect", {"dataset": str(tmp_path / "demonstrations")})
    state.finish("sft", {"checkpoint": str(tmp_path / "sft")})
    state.finish(
        "online",
        {"dataset": str(tmp_path / "online"), "checkpoint": str(tmp_path / "final"), "run": str(tmp_path / "run")},
    )
    return tmp_path


def test_the_report_states_every_evaluation_with_its_interval(run_directory: Path) -> None:
    text = build(run_directory).read_text()
    assert "5/10 = 50% | 24% to 76%" in text
    assert "9/10 = 90% | 60% to 98%" in text


def test_the_report_draws_the_curve(run_directory: Path) -> None:
    build(run_directory)
    assert (run_directory / "success_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_counts_takeovers_of_judged_episodes(run_directory: Path) -> None:
    text = build(run_directory).read_text()
    assert "| online | 45 | 30 | 2250 |" in text


def test_the_report_can_be_made_of_an_unfinished_run(tmp_path: Path) -> None:
    write_episodes(tmp_path / "demonstrations", ["success"], [0])
    DemoState.open(tmp_path, {"seed": 3}).finish("collect", {"dataset": str(tmp_path / "demonstrations")})
    assert "No online episodes." in build(tmp_path).read_text()


def test_the_closing_lines_name_a_command_for_everything(run_directory: Path) -> None:
    build(run_directory)
    text = "\n".join(closing_lines(run_directory))
    assert f"less {run_directory / 'report.md'}" in text
    assert f"checkpoint_path={run_directory / 'final'}" in text
    assert f"--root {run_directory / 'online'}" in text


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"demo_state\.json is missing"):
        build(tmp_path)


def test_a_table_sees_new_and_relabelled_episodes(tmp_path: Path) -> None:
    write_episodes(tmp_path, ["failure"], [0])
    table = EpisodeTable(tmp_path)
    assert [row.outcome for row in table.read()] == ["failure"]
    path = tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    old = pq.read_table(path)
    relabelled = old.set_column(old.column_names.index("outcome"), "outcome", pa.array(["success"]))
    pq.write_table(relabelled, path.with_name("file-000.tmp"))
    path.with_name("file-000.tmp").replace(path)
    assert [row.outcome for row in table.read()] == ["success"]


def test_a_rolling_share_counts_only_its_window() -> None:
    assert rolling_share([True, False, False, True], 2) == [1.0, 0.5, 0.0, 0.5]
