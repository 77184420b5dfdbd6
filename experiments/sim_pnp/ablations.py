"""What each part of online learning is worth on sim_pnp: the demo's online phase with one thing changed.

    python experiments/sim_pnp/ablations.py --seeds 0 1 2                  # every arm, 12 minutes each
    python experiments/sim_pnp/ablations.py --arms full sac_pi0 --seeds 0  # some
    python experiments/sim_pnp/ablations.py --quick                        # every arm in seconds; learns nothing

The arm `full` is the demo itself (a finished one: --base outputs/demo). The others of its seed go on from the same
demonstrations and the same fine-tuned policy, have the same time online, and are evaluated on the same start states
without takeovers. Started again, it goes on where it was. --table-only writes `table.md` from what is finished.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED_PHASES = ("collect", "sft", "eval_sft")
QUICK = ("--quick",)
STATE = "demo_state.json"


@dataclass(frozen=True)
class Arm:
    """One change to the demo's online phase."""

    what: str
    overrides: tuple[str, ...] = ()
    needs_classifier: bool = False


FULL = "full"
ARMS = {
    FULL: Arm("the demo: takeovers, no-op filter, the simulator's own reward"),
    "no_interventions": Arm("nobody takes over", ("actor.intervention.enabled=false",)),
    "no_noop_filter": Arm("chunks that stand still are learned, too", ("dataset.noop_threshold=0",)),
    "classifier_reward": Arm("success is what a learned classifier sees", needs_classifier=True),
    "sac_pi0": Arm(
        "chunked critics and a behaviour-regularised policy",
        ("algo=sac_pi0", "algo.optimizer.name=adamw", "algo.optimizer.lr=1.0e-4", "algo.sac.reward_from=label"),
    ),
    "sac_pi0_path": Arm(
        "chunked critics and a policy with a log-probability",
        ("algo=sac_pi0_path", "algo.optimizer.name=adamw", "algo.optimizer.lr=1.0e-4", "algo.sac.reward_from=label"),
    ),
}
"""All have one fixed threshold: returns here are 0 or 1, so every schedule accepts the same episodes."""


def main() -> None:
    """Runs what is asked for, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/ablations"))
    parser.add_argument("--base", type=Path, help="finished demo of the (one) seed to go on from")
    parser.add_argument("--online-seconds", type=float, default=600.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    for seed in [] if arguments.table_only else arguments.seeds:
        base = output / f"{FULL}-{seed}"
        if arguments.base and not base.exists():
            output.mkdir(parents=True, exist_ok=True)
            base.symlink_to(arguments.base.absolute())
        if not arguments.base:
            demo(base, seed, arguments)
        for name in arguments.arms:
            if name != FULL:
                run_arm(name, output / f"{name}-{seed}", base, seed, arguments)
    table = table_of(output)
    (output / "table.md").write_text(table)
    sys.stdout.write(table)


def demo(directory: Path, seed: int, arguments: argparse.Namespace, *overrides: str) -> None:
    """Runs (or continues) a demo in a directory."""
    length = QUICK if arguments.quick else ("--online-seconds", f"{arguments.online_seconds}")
    call("-m", "tools.demo", "--seed", f"{seed}", "--output", f"{directory}", *length, *overrides)


def run_arm(name: str, directory: Path, base: Path, seed: int, arguments: argparse.Namespace) -> None:
    """Runs one arm from the base's policy, unless it is finished."""
    arm, overrides = ARMS[name], list(ARMS[name].overrides)
    state = json.loads((base / STATE).read_text())
    if arm.needs_classifier:
        path = train_classifier(directory, state, quick=arguments.quick)
        overrides += ["actor.rewards.sources=[classifier]", f"actor.rewards.classifier_path={path}"]
    if not (directory / STATE).exists():
        state["phases"] = {phase: state["phases"][phase] for phase in SHARED_PHASES}
        state["seconds_so_far"] = {}
        state["settings"] |= {"overrides": overrides}
        if not arguments.quick:
            state["settings"] |= {"online_seconds": arguments.online_seconds}
        directory.mkdir(parents=True, exist_ok=True)
        (directory / STATE).write_text(json.dumps(state, indent=2))
    demo(directory, seed, arguments, *overrides)
    if arm.needs_classifier and not (directory / "eval_truth" / "report.json").exists():
        evaluate(directory, state["settings"]["eval_episodes"])


def train_classifier(directory: Path, state: dict, *, quick: bool) -> Path:
    """Returns the directory of a classifier learned from the demonstrations."""
    found = list(directory.glob("*/reward_classifier"))
    if not found:
        demonstrations = json.dumps(state["phases"]["collect"]["values"]["dataset"])
        call(
            "-m", "learner.train_reward", "algo=reward_classifier", "task=sim_pnp", f"output_dir={directory}",
            "unique_identifier=classifier", f"dataset.repo_id=[{demonstrations}]",
            f"algo.max_updates={20 if quick else 1000}",
        )  # fmt: skip
        found = list(directory.glob("*/reward_classifier"))
    return found[0]


def evaluate(directory: Path, num_episodes: int) -> None:
    """Evaluates the arm's policy by the simulator's own word, not by the classifier's."""
    checkpoint = json.loads((directory / STATE).read_text())["phases"]["online"]["values"]["checkpoint"]
    call(
        "-m", "actor", "task=sim_pnp", "policy=pi0_tiny", "actor.mode=eval", f"checkpoint_path={checkpoint}",
        f"output_dir={directory}", "unique_identifier=truth", f"evaluation.num_episodes={num_episodes}",
        "evaluation.num_videos=0", f"evaluation.output_dir={directory / 'eval_truth'}",
    )  # fmt: skip


def table_of(output: Path) -> str:
    """Returns the finished arms as a Markdown table."""
    rows = [
        "| arm | what | seed | success [95 % Wilson] | ticks per success | SFT before |",
        "|---|---|---|---|---|---|",
    ]
    for name, arm in ARMS.items():
        for directory in sorted(output.glob(f"{name}-[0-9]*")):
            truth = directory / "eval_truth" / "report.json"
            after = overall(truth if truth.exists() else directory / "eval_online" / "report.json")
            if after is None:
                continue
            state = json.loads((directory / STATE).read_text())
            before = overall(Path(state["phases"]["eval_sft"]["values"]["report"]))
            ticks = after["mean_steps_of_successes"]
            rows.append(
                f"| `{name}` | {arm.what} | {directory.name.rpartition('-')[2]} | {percent(after)} | "
                f"{'-' if ticks is None else f'{ticks:.0f}'} | {'-' if before is None else percent(before)} |"
            )
    return "\n".join(rows) + "\n"


def overall(report: Path) -> dict | None:
    """Returns an evaluation's figures, or None where there is none yet."""
    return json.loads(report.read_text())["overall"] if report.exists() else None


def percent(rate: dict) -> str:
    """Returns a success rate with its interval."""
    return (
        f"{rate['num_successes']} of {rate['num_episodes']} "
        f"[{100 * rate['wilson_low']:.0f}, {100 * rate['wilson_high']:.0f}] %"
    )


def call(*arguments: str) -> None:
    """Runs a module of the repository with this interpreter."""
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
