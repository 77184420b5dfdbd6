import csv
import json
from pathlib import Path

import msgspec
import pytest

from actor.evaluation_report import (
    EpisodeResult,
    EvaluationReport,
    describe,
    success_at_attempt,
    success_by_prompt,
    success_rate,
    wilson_interval,
    write_report,
)
from serl_launcher.types import Outcome


def result(episode: int, *, success: bool, prompt: str = "a") -> EpisodeResult:
    return EpisodeResult(
        episode=episode, seed=100 + episode, prompt=prompt, told_prompt=prompt, num_steps=10 + episode,
        outcome=Outcome.SUCCESS if success else Outcome.FAILURE, duration_s=2.0 + episode,
    )  # fmt: skip


RESULTS = [result(0, success=True), result(1, success=False), result(2, success=True, prompt="b")]


def report() -> EvaluationReport:
    return EvaluationReport(
        checkpoint="/runs/x", policy_hash="ab" * 32, environment="tiny", first_seed=100, noise_seed=1, num_lanes=2,
        execution_horizon=8, wrong_prompt=False, duration_s=1.0, overall=success_rate(RESULTS),
        by_prompt=success_by_prompt(RESULTS),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("num_successes", "low", "high"),
    [(0, 0.0, 0.0370), (50, 0.4038, 0.5962), (87, 0.7902, 0.9224), (100, 0.9630, 1.0)],
)
def test_wilson_interval_of_a_hundred_trials(num_successes: int, low: float, high: float):
    assert wilson_interval(num_successes, 100) == pytest.approx((low, high), abs=1e-4)


def test_without_trials_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_steps_are_averaged_over_all_and_over_successes():
    rate = success_rate(RESULTS)
    assert (rate.mean_steps, rate.mean_steps_of_successes) == (11.0, 11.0)


def test_without_a_success_there_is_no_mean_of_successes():
    assert success_rate([result(0, success=False)]).mean_steps_of_successes is None


def test_prompts_are_reported_one_by_one():
    rates = success_by_prompt(RESULTS)
    assert {prompt: rate.num_successes for prompt, rate in rates.items()} == {"a": 1, "b": 1}


def test_the_files_hold_what_was_found(tmp_path: Path):
    write_report(report(), RESULTS, tmp_path / "eval")
    written = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert written["overall"]["success_rate"] == pytest.approx(2 / 3)
    with (tmp_path / "eval" / "episodes.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["success"] for row in rows] == ["True", "False", "True"]


def test_help_is_counted_per_episode_and_per_step(tmp_path: Path):
    helped = msgspec.structs.replace(RESULTS[1], num_takeovers=3, num_human_steps=11, outcome=Outcome.SUCCESS)
    results = [RESULTS[0], helped, RESULTS[2]]
    rate = success_rate(results)
    assert (rate.num_takeovers, rate.takeovers_per_episode, rate.num_solved_with_help) == (3, 1.0, 1)
    assert (rate.takeover_rate, rate.intervention_rate) == pytest.approx((1 / 3, 11 / 33))
    assert rate.num_successes == 2
    told = msgspec.structs.replace(report(), overall=rate, interventions=True)
    assert "took over 3 times, 1.00 per episode, in 33.3% of the episodes and for 33.3% of the steps" in "".join(
        describe(told)
    )
    write_report(told, results, tmp_path)
    with (tmp_path / "episodes.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [(row["num_takeovers"], row["num_human_steps"], row["solved_with_help"]) for row in rows] == [
        ("0", "0", "False"), ("3", "11", "True"), ("0", "0", "False")
    ]  # fmt: skip
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["interventions"], written["overall"]["num_takeovers"]) == (True, 3)


def test_the_text_names_policy_share_and_interval():
    lines = describe(report())
    assert lines[0].startswith("Policy abababababab: 2 of 3 succeeded, 66.7% [20.8%, 93.9%] (Wilson 95 %)")
    assert len(lines) == 3


def test_what_nobody_judged_or_a_fault_cut_off_is_told_and_not_counted():
    unscored = [
        msgspec.structs.replace(RESULTS[0], outcome=outcome) for outcome in (Outcome.UNLABELLED, Outcome.ABORTED)
    ]
    rate = success_rate([*RESULTS, *unscored])
    assert (rate.num_episodes, rate.num_successes, rate.num_unlabelled, rate.num_aborted) == (3, 2, 1, 1)
    assert (rate.wilson_low, rate.wilson_high) == wilson_interval(2, 3)
    assert rate.mean_steps == 11.0
    lines = describe(msgspec.structs.replace(report(), overall=rate, num_planned=9))
    assert "4 of 9 episodes were played" in lines[-2]
    assert "Not counted: 1 that nobody judged, 1 that a fault or a stop cut off." in lines[-1]


def test_the_time_of_a_success_is_told_by_both_clocks():
    rate = success_rate(RESULTS, control_hz=10.0)
    assert (rate.cycle_time_s, rate.cycle_wall_s) == (1.1, 3.0)
    assert (
        "1.1 s per success (3.0 s by the clock on the wall)"
        in describe(msgspec.structs.replace(report(), overall=rate))[0]
    )


def test_retries_are_shares_of_the_start_states_that_were_scored():
    again = msgspec.structs.replace(RESULTS[1], attempt=2, outcome=Outcome.SUCCESS)
    cut_off = msgspec.structs.replace(RESULTS[1], episode=7, outcome=Outcome.ABORTED)
    assert success_at_attempt([*RESULTS, again, cut_off], 2) == pytest.approx([2 / 3, 1.0])
