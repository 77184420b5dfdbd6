"""Draws learning curves of `tools.train_single` and of its peers into one picture.

    python experiments/plot_curves.py --what return --output curve.png ours=outputs/pendulum/ours.json \
        stable-baselines3=outputs/pendulum/baseline.json

`FILE#num_actors=4` takes only the runs that say so. A line per seed (mean of 10 episodes as they were played; for
success those without an expert's help), and a point for the evaluation at the end.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WINDOW = 10
COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#4a5568")


def main() -> None:
    """Reads the results, writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="LABEL=FILE")
    parser.add_argument("--what", choices=("return", "success"), default="return")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--title", default="")
    arguments = parser.parse_args()
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        xlabel="steps of the task", ylabel=f"{arguments.what}, mean of {WINDOW} episodes", title=arguments.title
    )
    for colour, item in zip(COLOURS, arguments.results, strict=False):
        label, path = item.split("=", 1)
        path, _, wanted = path.partition("#")
        key, _, value = wanted.partition("=")
        content = json.loads(Path(path).read_text())
        results = [run for run in content.get("results", content.get("runs")) if not key or str(run[key]) == value]
        for number, result in enumerate(results):
            steps, values = curve(result, arguments.what)
            axes.plot(steps, values, color=colour, linewidth=1.1, alpha=0.8, label=None if number else label)
            final = np.mean(result["returns" if arguments.what == "return" else "successes"])
            axes.plot([content["steps"] * 1.02], [final], "o", color=colour, markersize=5, clip_on=False)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(arguments.output)


def curve(result: dict, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the last step of every window of episodes, and the mean over the window."""
    rows = result["training"]
    if what == "success":
        rows = [row for row in rows if not row["num_expert_steps"]]
    if rows and isinstance(rows[0], list):  # stable-baselines3: [seconds, return, length].
        steps, values = np.cumsum([row[2] for row in rows]), np.array([row[1] for row in rows], float)
    else:
        steps = np.array([row["num_steps"] for row in rows])
        values = np.array([row["total" if what == "return" else "success"] for row in rows], float)
    if len(values) < WINDOW:
        return steps, values
    return steps[WINDOW - 1 :], np.convolve(values, np.ones(WINDOW) / WINDOW, mode="valid")


if __name__ == "__main__":
    main()
