"""`python -m tools.report outputs/demo`: report, success curve and videos, from the run directory alone."""

import datetime
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from actor.evaluation_report import EvaluationReport
from serl_launcher.config import run_main
from serl_launcher.errors import ConfigError
from serl_launcher.files import write_atomic
from serl_launcher.status import read_status
from tools.charts import WINDOW, EvalPoint, draw_success_curve
from tools.demo.state import DemoState
from tools.episodes import EpisodeRow, EpisodeTable, share
from tools.merge_video import merge_videos

EVALUATIONS = {
    "eval_sft": "after fine-tuning on the demonstrations",
    "eval_online": "after online rejection sampling",
    "eval_sft_longer": "control: further fine-tuning instead, as long",
    "eval_wrong_prompt": "control: final policy, wrong prompt",
}
VIDEO_FPS = 20.0
"""Twice the speed of the simulated robot."""
VIDEOS = {"before.mp4": "eval_sft", "after.mp4": "eval_online"}


@dataclass(kw_only=True, slots=True)
class RunSummary:
    """What is known of a demo run."""

    directory: Path
    state: DemoState
    evaluations: dict[str, EvaluationReport]
    demonstrations: list[EpisodeRow]
    online: list[EpisodeRow]

    @classmethod
    def read(cls, directory: Path) -> "RunSummary":
        """Reads a finished or unfinished run; raises ConfigError where there is none."""
        state = DemoState.read(directory)
        reports = {name: directory / name / "report.json" for name in EVALUATIONS}
        return cls(
            directory=directory,
            state=state,
            evaluations={
                name: msgspec.json.decode(path.read_bytes(), type=EvaluationReport)
                for name, path in reports.items()
                if path.exists()
            },
            demonstrations=_episodes(state, "collect"),
            online=_episodes(state, "online"),
        )


def build(directory: Path) -> Path:
    """Writes the report, the curve and the videos of a run; returns the path of the report."""
    summary = RunSummary.read(directory)
    draw_success_curve(summary.online, _points(summary), directory / "success_curve.png")
    for name, phase in VIDEOS.items():
        films = sorted((directory / phase).rglob("*.mp4"))
        if films:
            merge_videos(films, directory / name, fps=VIDEO_FPS)
    path = directory / "report.md"
    write_atomic(path, _markdown(summary).encode())
    return path


def closing_lines(directory: Path) -> list[str]:
    """Returns where everything is, and which command opens it."""
    summary = RunSummary.read(directory)
    lines = ["", f"Everything is in {directory}:"]
    for name in ("report.md", "success_curve.png", *VIDEOS):
        if (directory / name).exists():
            opener = "less" if name.endswith(".md") else "xdg-open"
            lines.append(f"  {name:<18} {opener} {directory / name}")
    phases = summary.state.phases
    for phase in ("collect", "online"):
        if phase in phases:
            lines.append(f"  {phase + ' dataset':<18} {_viewer(Path(phases[phase].values['dataset']))}")
    for phase in ("sft", "online"):
        if phase in phases:
            checkpoint = phases[phase].values["checkpoint"]
            lines.append(
                f"  {phase + ' policy':<18} bash experiments/sim_pnp/run_actor_eval.sh checkpoint_path={checkpoint}"
            )
    return lines


def main() -> int:
    """Rebuilds the report of the run directory on the command line."""
    if len(sys.argv) != 2:
        raise ConfigError(
            f"Expected one run directory, as in `python -m tools.report outputs/demo`, got {sys.argv[1:]}."
        )
    directory = Path(sys.argv[1]).absolute()
    build(directory)
    sys.stdout.write("\n".join(closing_lines(directory)) + "\n")
    return 0


def _episodes(state: DemoState, phase: str) -> list[EpisodeRow]:
    return EpisodeTable(Path(state.phases[phase].values["dataset"])).read() if phase in state.phases else []


def _points(summary: RunSummary) -> list[EvalPoint]:
    places = {"eval_sft": ("SFT", 0), "eval_online": ("online", len(summary.online))}
    return [
        EvalPoint(
            label=label,
            num_episodes_before=place,
            rate=report.overall.success_rate,
            low=report.overall.wilson_low,
            high=report.overall.wilson_high,
        )
        for name, (label, place) in places.items()
        if (report := summary.evaluations.get(name))
    ]


def _markdown(summary: RunSummary) -> str:
    settings = summary.state.settings
    now = datetime.datetime.now().astimezone()
    sections = [
        "# sim_pnp: from demonstrations to online learning",
        f"Made on {now:%Y-%m-%d %H:%M}, {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, training seed {settings.get('seed')}.",
        "## Success without help\n\n" + _evaluation_table(summary.evaluations),
        "![success curve](success_curve.png)",
        "## During the online phase\n\n" + _online_section(summary.online) + _training_line(summary.state),
        "## Data\n\n" + _data_section(summary),
        "## Time\n\n" + _time_table(summary.state),
        "## Settings\n\n```\n" + "\n".join(f"{name}: {value}" for name, value in settings.items()) + "\n```",
        "## Look at it\n\n```\n" + "\n".join(closing_lines(summary.directory)[2:]) + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _evaluation_table(evaluations: dict[str, EvaluationReport]) -> str:
    lines = [
        "| policy | success | Wilson 95 % | mean steps of successes | policy hash |",
        "|---|---|---|---|---|",
    ]
    for name, title in EVALUATIONS.items():
        if name not in evaluations:
            continue
        report = evaluations[name]
        overall = report.overall
        steps = "-" if overall.mean_steps_of_successes is None else f"{overall.mean_steps_of_successes:.0f}"
        lines.append(
            f"| {title} | {overall.num_successes}/{overall.num_episodes} = {overall.success_rate:.0%} "
            f"| {overall.wilson_low:.0%} to {overall.wilson_high:.0%} | {steps} | `{report.policy_hash[:12]}` |"
        )
    some = next(iter(evaluations.values()), None)
    if some is not None:
        lines.append(
            f"\nStart states: seeds {some.first_seed} and following, never used in training; nobody takes over."
        )
    by_prompt = [
        f"- {EVALUATIONS[name]}, `{prompt}`: {rate.num_successes}/{rate.num_episodes}"
        for name, report in evaluations.items()
        for prompt, rate in report.by_prompt.items()
    ]
    return "\n".join([*lines, "", *by_prompt])


def _online_section(rows: Sequence[EpisodeRow]) -> str:
    if not rows:
        return "No online episodes."
    first, last = rows[:WINDOW], rows[-WINDOW:]
    lines = [f"| | first {len(first)} episodes | last {len(last)} episodes |", "|---|---|---|"]
    for title, flag in (
        ("success, with help", "is_success"),
        ("success without help", "is_unaided_success"),
    ):
        shares = [share([getattr(row, flag) for row in part]) for part in (first, last)]
        lines.append(f"| {title} | {shares[0]:.0%} | {shares[1]:.0%} |")
    taken = [share([row.num_intervention_steps > 0 for row in part]) for part in (first, last)]
    steps = [
        sum(r.num_intervention_steps for r in part) / max(sum(r.length for r in part), 1) for part in (first, last)
    ]
    lines.append(f"| episodes with a takeover | {taken[0]:.0%} | {taken[1]:.0%} |")
    lines.append(f"| steps commanded by the person | {steps[0]:.0%} | {steps[1]:.0%} |")
    return "\n".join(lines)


def _training_line(state: DemoState) -> str:
    """Returns what the trainer said last, or nothing."""
    if "online" not in state.phases:
        return ""
    trainer = read_status(Path(state.phases["online"].values["run"]) / "status" / "trainer.json") or {}
    wanted = ("updates", "policy_version", "accepted_episodes", "update_to_data", "seconds_trained")
    known = [f"{name.replace('_', ' ')} {trainer[name]}" for name in wanted if name in trainer]
    return "\n\nTrainer at the end: " + ", ".join(known) + "." if known else ""


def _data_section(summary: RunSummary) -> str:
    lines = ["| dataset | episodes | successes | steps |", "|---|---|---|---|"]
    for title, rows in (("demonstrations", summary.demonstrations), ("online", summary.online)):
        successes = sum(row.is_success for row in rows)
        lines.append(f"| {title} | {len(rows)} | {successes} | {sum(row.length for row in rows)} |")
    return "\n".join(lines)


def _time_table(state: DemoState) -> str:
    lines = ["| phase | seconds |", "|---|---|"]
    lines += [f"| {name} | {phase.seconds:.0f} |" for name, phase in state.phases.items()]
    total = sum(phase.seconds for phase in state.phases.values())
    return "\n".join([*lines, f"| all | {total:.0f} |"])


def _viewer(dataset: Path) -> str:
    return f"lerobot-dataset-viz --repo-id {dataset.name} --root {dataset} --episode-index 0"


if __name__ == "__main__":
    run_main(main)
