"""What an evaluation found: numbers with their uncertainty, as JSON, CSV and a few lines of text."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serl_launcher.files import write_atomic

Z_95 = 1.959963984540054


class EpisodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluated start state."""

    episode: int
    seed: int
    prompt: str
    """What the scene asks for."""
    told_prompt: str
    """What the policy was told."""
    success: bool
    """Whether it was solved without help."""
    num_steps: int
    attempt: int = 1
    """1 for the first try of this start state."""
    solved_with_help: bool = False
    """Whether it was solved, and a person took over on the way."""
    num_takeovers: int = 0
    num_human_steps: int = 0
    """Ticks at which the person acted."""


class SuccessRate(msgspec.Struct, frozen=True, kw_only=True):
    """Successes without help among trials, with the Wilson 95 % interval, and the help that there was."""

    num_episodes: int
    num_successes: int
    success_rate: float
    wilson_low: float
    wilson_high: float
    mean_steps: float
    """Over all episodes."""
    mean_steps_of_successes: float | None
    cycle_time_s: float | None = None
    """Mean time of a successful episode on the robot's clock, without resets."""
    num_takeovers: int = 0
    takeovers_per_episode: float = 0.0
    takeover_rate: float = 0.0
    """Share of the episodes in which a person took over."""
    intervention_rate: float = 0.0
    """Share of the steps that a person commanded."""
    num_solved_with_help: int = 0


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `report.json`."""

    checkpoint: str
    policy_hash: str
    environment: str
    first_seed: int
    noise_seed: int
    num_lanes: int
    """The noise of the policy is drawn for all lanes at once: the same number of lanes repeats the same run."""
    execution_horizon: int
    wrong_prompt: bool
    duration_s: float
    overall: SuccessRate
    by_prompt: dict[str, SuccessRate]
    interventions: bool = False
    """Whether a person was there who might take over; without one the counts of help are 0 by construction."""
    success_at_attempt: list[float] = []
    """Share of start states that were solved within 1, 2, ... attempts."""


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a proportion (Wilson 1927); (0, 1) without trials."""
    if num_trials == 0:
        return 0.0, 1.0
    share, z2 = num_successes / num_trials, Z_95**2
    centre = (share + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    half = Z_95 / (1 + z2 / num_trials) * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def first_attempts(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """Returns the episodes that were not retries."""
    return [result for result in results if result.attempt == 1]


def success_at_attempt(results: Sequence[EpisodeResult], num_attempts: int) -> list[float]:
    """Returns the share of start states that were solved within 1, 2, ... `num_attempts` attempts."""
    episodes = {result.episode for result in results}
    solved = [
        {result.episode for result in results if result.success and result.attempt <= attempt}
        for attempt in range(1, num_attempts + 1)
    ]
    return [len(each) / max(len(episodes), 1) for each in solved]


def success_rate(results: Sequence[EpisodeResult], *, control_hz: float | None = None) -> SuccessRate:
    """Returns the success of these episodes; with the robot's rate also their cycle time."""
    lengths = [result.num_steps for result in results]
    successful = [result.num_steps for result in results if result.success]
    low, high = wilson_interval(len(successful), len(results))
    steps_of_successes = sum(successful) / len(successful) if successful else None
    num_takeovers = sum(result.num_takeovers for result in results)
    return SuccessRate(
        num_episodes=len(results),
        num_successes=len(successful),
        success_rate=len(successful) / max(len(results), 1),
        wilson_low=low,
        wilson_high=high,
        mean_steps=sum(lengths) / max(len(lengths), 1),
        mean_steps_of_successes=steps_of_successes,
        cycle_time_s=steps_of_successes / control_hz if steps_of_successes and control_hz else None,
        num_takeovers=num_takeovers,
        takeovers_per_episode=num_takeovers / max(len(results), 1),
        takeover_rate=sum(result.num_takeovers > 0 for result in results) / max(len(results), 1),
        intervention_rate=sum(result.num_human_steps for result in results) / max(sum(lengths), 1),
        num_solved_with_help=sum(result.solved_with_help for result in results),
    )


def success_by_prompt(results: Sequence[EpisodeResult], *, control_hz: float | None = None) -> dict[str, SuccessRate]:
    """Returns the success per prompt of the scene, in alphabetical order."""
    prompts = sorted({result.prompt for result in results})
    return {
        prompt: success_rate([result for result in results if result.prompt == prompt], control_hz=control_hz)
        for prompt in prompts
    }


def write_report(report: EvaluationReport, results: Sequence[EpisodeResult], directory: Path) -> None:
    """Writes `report.json` and `episodes.csv`."""
    directory.mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    rows = csv.DictWriter(table, fieldnames=EpisodeResult.__struct_fields__, lineterminator="\n")
    rows.writeheader()
    rows.writerows(msgspec.structs.asdict(result) for result in results)
    write_atomic(directory / "episodes.csv", table.getvalue().encode())
    write_atomic(directory / "report.json", msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def describe(report: EvaluationReport) -> list[str]:
    """Returns the report as lines of text: one for all episodes, one per prompt."""
    lines = [
        f"Policy {report.policy_hash[:12]}: {_line(report.overall)}{', told wrong prompts' * report.wrong_prompt}."
    ]
    lines += [f"  {prompt!r}: {_line(rate)}." for prompt, rate in report.by_prompt.items()]
    if report.interventions:
        lines.append(f"  {_help_line(report.overall)}")
    if len(report.success_at_attempt) > 1:
        shares = ", ".join(f"{share:.1%} at {number}" for number, share in enumerate(report.success_at_attempt, 1))
        lines.append(f"  Solved within so many attempts: {shares}.")
    return lines


def _line(rate: SuccessRate) -> str:
    return (
        f"{rate.num_successes} of {rate.num_episodes} succeeded, {rate.success_rate:.1%} "
        f"[{rate.wilson_low:.1%}, {rate.wilson_high:.1%}] (Wilson 95 %), {rate.mean_steps:.1f} steps on average"
        + (f", {rate.cycle_time_s:.1f} s per success" if rate.cycle_time_s else "")
    )


def _help_line(rate: SuccessRate) -> str:
    return (
        f"A person took over {rate.num_takeovers} times, {rate.takeovers_per_episode:.2f} per episode, in "
        f"{rate.takeover_rate:.1%} of the episodes and for {rate.intervention_rate:.1%} of the steps; "
        f"{rate.num_solved_with_help} were solved with that help and count as not succeeded."
    )
