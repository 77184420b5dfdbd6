"""What distribution costs: the same seeds in one process and through sockets, as a table.

    SEEDS=3 STEPS=10000 OUTPUT=outputs/pendulum/ours-10k.json experiments/pendulum/run.sh
    python experiments/pendulum/distributed.py
    python experiments/pendulum/compare.py outputs/pendulum/ours-10k.json outputs/pendulum/distributed.json

Score: mean return of the evaluation, over seeds, with the 95 % interval of Student's t. Sample efficiency: the steps
that one process needed until EPISODES times 200 steps in a row earned THRESHOLD per 200 on average, divided by the
steps needed through sockets, seed by seed; above 1 is faster than one process. Actors play side by side, so the window
is two whole episodes of each of four.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

THRESHOLD = -300.0
EPISODES = 8
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Seeds to the factor of the standard error in a two-sided interval of 95 %."""


def main() -> None:
    """Reads the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("single", type=Path)
    parser.add_argument("distributed", type=Path)
    arguments = parser.parse_args()
    single = {run["seed"]: run for run in json.loads(arguments.single.read_text())["results"]}
    runs = json.loads(arguments.distributed.read_text())["runs"]
    rows = [
        "| | seeds | mean return [95 %] | steps to the threshold | sample efficiency |",
        "|---|---|---|---|---|",
        row("one process", list(single.values()), single),
        *(
            row(
                f"sockets, {count} actors, segments of {segment}",
                [run for run in runs if (run["num_actors"], run["segment"]) == (count, segment)],
                single,
            )
            for count, segment in sorted({(run["num_actors"], run["segment"]) for run in runs})
        ),
    ]
    sys.stdout.write("\n".join(rows) + "\n")


def row(name: str, runs: list[dict], single: dict[int, dict]) -> str:
    """Returns one line of the table."""
    scores = np.array([np.mean(run["returns"]) for run in runs])
    margin = STUDENT[len(scores)] * scores.std(ddof=1) / len(scores) ** 0.5
    needed = [steps_needed(run) for run in runs]
    ratios = [steps_needed(single[run["seed"]]) / steps for run, steps in zip(runs, needed, strict=True)]
    return (
        f"| {name} | {len(runs)} | {scores.mean():.1f} [{scores.mean() - margin:.1f}, {scores.mean() + margin:.1f}] | "
        f"{', '.join(map(str, needed))} | {np.mean(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)}) |"
    )


def steps_needed(run: dict) -> int:
    """Returns the steps after which EPISODES in a row reached THRESHOLD on average."""
    totals = [episode["total"] for episode in run["training"]]
    for last in range(EPISODES - 1, len(totals)):
        if np.mean(totals[last - EPISODES + 1 : last + 1]) >= THRESHOLD:
            return run["training"][last]["num_steps"]
    raise ValueError(f"Seed {run['seed']} never reached {THRESHOLD:g} in {EPISODES} episodes.")


if __name__ == "__main__":
    main()
