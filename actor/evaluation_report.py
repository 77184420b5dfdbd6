"""What an evaluation found: numbers with their uncertainty, as JSON, CSV and a few lines of text."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serl_launcher.files import write_atomic
from serl_launcher.types import Outcome

Z_95 = 1.959963984540054


class EpisodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one evaluated start state."""

    episode: int
    seed: int
    prompt: str
    """What the scene asks for."""
    told_prompt: str
    """What the policy was told."""
    outcome: Outcome
    """How it ended, with help or without. `aborted`: a fault or a stop cut it off, it says nothing about the policy;
    `unlabelled`: nobody judged it. Neither is scored."""
    num_steps: int
    """Ticks at which policy or person acted."""
    attempt: int = 1
    """1 for the first try of this start state."""
    num_takeovers: int = 0
    num_human_steps: int = 0
    """Ticks at which the person acted."""
    duration_s: float = 0.0
    """By the clock on the wall, from the end of the reset on; waiting for the policy included."""

    @property
    def is_scored(self) -> bool:
        """Whether somebody judged the episode to its end."""
        return self.outcome in (Outcome.SUCCESS, Outcome.FAILURE)

    @property
    def success(self) -> bool:
        """Whether it was solved without help."""
        return self.outcome is Outcome.SUCCESS and not self.num_takeovers

    @property
    def solved_with_help(self) -> bool:
        """Whether it was solved, and a person took over on the way."""
        return self.outcome is Outcome.SUCCESS and self.num_takeovers > 0


class SuccessRate(msgspec.Struct, frozen=True, kw_only=True):
    """Successes without help among the scored episodes, with the Wilson 95 % interval, and the help that there was."""

    num_episodes: int
    """Scored ones; everything below is about them, but for the last two."""
    num_successes: int
    success_rate: float
    wilson_low: float
    wilson_high: float
    mean_steps: float
    """Over all episodes."""
    mean_steps_of_successes: float | None
    cycle_time_s: float | None = None
    """Mean time of a successful episode on the robot's clock, without resets and without waiting for the policy."""
    cycle_wall_s: float | None = None
    """The same by the clock on the wall, waiting for the policy included."""
    num_takeovers: int = 0
    takeovers_per_episode: float = 0.0
    takeover_rate: float = 0.0
    """Share of the episodes in which a person took over."""
    intervention_rate: float = 0.0
    """Share of the steps that a person commanded."""
    num_solved_with_help: int = 0
    num_unlabelled: int = 0
    """Episodes that nobody judged: neither success nor failure."""
    num_aborted: int = 0
    """Attempts that a fault or a stop cut off; each was played again, unless the evaluation ended."""


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
    num_planned: int | None = None
    """Start states that were to be played; fewer results: the evaluation was stopped, or is still going on."""


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
    """Returns the share of scored start states that were solved within 1, 2, ... `num_attempts` attempts."""
    episodes = {result.episode for result in results if result.is_scored}
    solved = [
        {result.episode for result in results if result.success and result.attempt <= attempt}
        for attempt in range(1, num_attempts + 1)
    ]
    return [len(each) / max(len(episodes), 1) for each in solved]


def success_rate(results: Sequence[EpisodeResult], *, control_hz: float | None = None) -> SuccessRate:
    """Returns the success of the scored ones of these episodes; with the robot's rate also their cycle time."""
    scored = [result for result in results if result.is_scored]
    lengths = [result.num_steps for result in scored]
    successful = [result for result in scored if result.success]
    low, high = wilson_interval(len(successful), len(scored))
    steps_of_successes = _mean([result.num_steps for result in successful])
    num_takeovers, num_scored = sum(result.num_takeovers for result in scored), max(len(scored), 1)
    return SuccessRate(
        num_episodes=len(scored),
        num_successes=len(successful),
        success_rate=len(successful) / num_scored,
        wilson_low=low,
        wilson_high=high,
        mean_steps=_mean(lengths) or 0.0,
        mean_steps_of_successes=steps_of_successes,
        cycle_time_s=steps_of_successes / control_hz if steps_of_successes and control_hz else None,
        cycle_wall_s=_mean([result.duration_s for result in successful]),
        num_takeovers=num_takeovers,
        takeovers_per_episode=num_takeovers / num_scored,
        takeover_rate=sum(result.num_takeovers > 0 for result in scored) / num_scored,
        intervention_rate=sum(result.num_human_steps for result in scored) / max(sum(lengths), 1),
        num_solved_with_help=sum(result.solved_with_help for result in scored),
        num_unlabelled=sum(result.outcome is Outcome.UNLABELLED for result in results),
        num_aborted=sum(result.outcome is Outcome.ABORTED for result in results),
    )


def success_by_prompt(results: Sequence[EpisodeResult], *, control_hz: float | None = None) -> dict[str, SuccessRate]:
    """Returns the success per prompt of the scene, in alphabetical order."""
    prompts = sorted({result.prompt for result in results})
    return {
        prompt: success_rate([result for result in results if result.prompt == prompt], control_hz=control_hz)
        for prompt in prompts
    }


def write_report(
    report: EvaluationReport, results: Sequence[EpisodeResult], directory: Path, *, sync: bool = True
) -> None:
    """Writes `report.json` and `episodes.csv`, each as a whole or not at all; with `sync` also past a power cut."""
    directory.mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    fields = (*EpisodeResult.__struct_fields__, "success", "solved_with_help")
    rows = csv.DictWriter(table, fieldnames=fields, lineterminator="\n")
    rows.writeheader()
    rows.writerows({name: getattr(result, name) for name in fields} for result in results)
    write_atomic(directory / "episodes.csv", table.getvalue().encode(), sync=sync)
    write_atomic(
        directory / "report.json", msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n", sync=sync
    )


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
    num_done = report.overall.num_episodes + report.overall.num_unlabelled
    if report.num_planned is not None and num_done < report.num_planned:
        lines.append(f"  The evaluation ended before its end: {num_done} of {report.num_planned} episodes were played.")
    if report.overall.num_unlabelled or report.overall.num_aborted:
        lines.append(
            f"  Not counted: {report.overall.num_unlabelled} that nobody judged, {report.overall.num_aborted} that a "
            "fault or a stop cut off."
        )
    return lines


def _line(rate: SuccessRate) -> str:
    return (
        f"{rate.num_successes} of {rate.num_episodes} succeeded, {rate.success_rate:.1%} "
        f"[{rate.wilson_low:.1%}, {rate.wilson_high:.1%}] (Wilson 95 %), {rate.mean_steps:.1f} steps on average"
        + (f", {rate.cycle_time_s:.1f} s per success" if rate.cycle_time_s else "")
        + (f" ({rate.cycle_wall_s:.1f} s by the clock on the wall)" if rate.cycle_wall_s else "")
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _help_line(rate: SuccessRate) -> str:
    return (
        f"A person took over {rate.num_takeovers} times, {rate.takeovers_per_episode:.2f} per episode, in "
        f"{rate.takeover_rate:.1%} of the episodes and for {rate.intervention_rate:.1%} of the steps; "
        f"{rate.num_solved_with_help} were solved with that help and count as not succeeded."
    )
