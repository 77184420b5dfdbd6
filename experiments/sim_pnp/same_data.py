"""`sac_pi0` from the data that rejection sampling had: begins with the demo's policy, learns from its recordings alone.

    python experiments/sim_pnp/same_data.py --base outputs/demo          # 2000 updates, two evaluations: 20 min
    python experiments/sim_pnp/same_data.py --base outputs/demo algo.sac.distill_weight=10       # any override

Both policies are evaluated on the same start states without takeovers; ticks are those of successes. Started again, it
goes on where it was.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from learner.trainer.checkpoints import Checkpoints, policy_of

ROOT = Path(__file__).resolve().parents[2]
NAME = "sac"
SETTINGS = (
    "algo=sac_pi0", "task=sim_pnp", "policy=pi0_tiny", "dataset.offline_fraction=1.0", "algo.training_starts=0",
    "algo.optimizer.name=adamw", "algo.optimizer.lr=1.0e-4", "algo.sac.reward_from=label",
    "algo.sac.discount=0.97",
)  # fmt: skip


def main() -> None:
    """Trains, evaluates, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="finished demo")
    parser.add_argument("--output", type=Path, default=Path("outputs/same_data"))
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--episodes", type=int, default=300)
    arguments, overrides = parser.parse_known_args()
    output = arguments.output.absolute()
    phases = json.loads((arguments.base / "demo_state.json").read_text())["phases"]
    before, online = phases["online"]["values"]["checkpoint"], phases["online"]["values"]["dataset"]
    demonstrations = phases["collect"]["values"]["dataset"]
    call(
        "-m", "learner.trainer", *SETTINGS, f"unique_identifier={NAME}", f"output_dir={output}",
        f"checkpoint_path={before}", f"dataset.repo_id=[{demonstrations},{online}]",
        f"algo.max_updates={arguments.updates}", *overrides,
    )  # fmt: skip
    newest = Checkpoints(output / NAME / "checkpoints", keep=1).newest()
    assert newest is not None, "the trainer has finished"
    evaluate(Path(before), output / "before", arguments.episodes)
    evaluate(policy_of(newest), output / f"after-{newest.name}", arguments.episodes)
    sys.stdout.write(table_of(output / "before", output / f"after-{newest.name}"))


def evaluate(policy: Path, output: Path, num_episodes: int) -> None:
    """Evaluates a policy into a directory, unless it is done."""
    if (output / "report.json").exists():
        return
    call(
        "-m", "actor", "task=sim_pnp", "policy=pi0_tiny", "actor.mode=eval", f"checkpoint_path={policy}",
        f"output_dir={output}", "unique_identifier=eval", f"evaluation.num_episodes={num_episodes}",
        "evaluation.num_videos=0", f"evaluation.output_dir={output}",
    )  # fmt: skip


def table_of(before: Path, after: Path) -> str:
    """Returns successes and ticks of both, and the difference where both succeed from the same start state."""
    rows = ["| | success [95 % Wilson] | ticks, mean | quartiles |", "|---|---|---|---|"]
    ticks = {}
    for name, directory in (("rejection sampling", before), ("sac_pi0", after)):
        overall = json.loads((directory / "report.json").read_text())["overall"]
        ticks[name] = ticks_of_successes(directory / "episodes.csv")
        values = np.array(list(ticks[name].values()))
        rate = (
            f"{overall['num_successes']} of {overall['num_episodes']} "
            f"[{100 * overall['wilson_low']:.0f}, {100 * overall['wilson_high']:.0f}] %"
        )
        quartiles = ", ".join(f"{each:.0f}" for each in np.percentile(values, [25, 50, 75]))
        rows.append(f"| {name} | {rate} | {values.mean():.1f} | {quartiles} |")
    one, other = ticks.values()
    change = np.array([other[seed] - one[seed] for seed in one.keys() & other.keys()])
    error = change.std(ddof=1) / len(change) ** 0.5
    rows.append(f"\nBoth succeed from {len(change)} start states; sac_pi0: {change.mean():+.1f} +- {error:.1f} ticks.")
    return "\n".join(rows) + "\n"


def ticks_of_successes(path: Path) -> dict[str, int]:
    """Returns the length of every successful episode by the seed of its start state."""
    with path.open() as file:
        return {row["seed"]: int(row["num_steps"]) for row in csv.DictReader(file) if row["success"] == "True"}


def call(*arguments: str) -> None:
    """Runs a module of the repository with this interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
