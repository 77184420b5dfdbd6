"""The picture: jumps where chunks join and success, over the latency, for each way of joining."""

from collections.abc import Sequence
from pathlib import Path

from tools.bench_latency.seams import Cell
from tools.charts import BLUE, GREEN, GREY, ORANGE

COLOURS = (ORANGE, BLUE, GREEN, "#805ad5", "#2c7a7b", "#b83280")


def label_of(cell: Cell) -> str:
    """Returns the range of latencies as text."""
    return f"{cell.low_ms:g}" if cell.low_ms == cell.high_ms else f"{cell.low_ms:g}-{cell.high_ms:g}"


def draw(cells: Sequence[Cell], path: Path, *, hz: float) -> None:
    """Writes a PNG of three panels: position jump, velocity jump, success with its Wilson interval."""
    # A canvas of its own instead of pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    labels = list(dict.fromkeys(label_of(cell) for cell in cells))
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    for number, arm in enumerate(arms):
        offset, colour = 0.6 * ((number + 0.5) / len(arms) - 0.5), COLOURS[number % len(COLOURS)]
        own = [cell for cell in cells if cell.arm == arm]
        places = [labels.index(label_of(cell)) + offset for cell in own]
        for axes, name in ((panels[0], "position_jumps"), (panels[1], "velocity_jumps")):
            middle = [cell.percentile(name, 50) for cell in own]
            above = [cell.percentile(name, 90) - cell.percentile(name, 50) for cell in own]
            below = [cell.percentile(name, 50) - cell.percentile(name, 10) for cell in own]
            axes.errorbar(places, middle, yerr=[below, above], fmt="o", color=colour, label=arm, capsize=3)
        rates = [cell.successes[0] / cell.successes[1] for cell in own]
        errors = [
            [rate - cell.wilson[0] for rate, cell in zip(rates, own, strict=True)],
            [cell.wilson[1] - rate for rate, cell in zip(rates, own, strict=True)],
        ]
        panels[2].errorbar(places, rates, yerr=errors, fmt="o", color=colour, label=arm, capsize=3)
    motion = [cell.percentile("velocity_changes", 50) for cell in cells]
    panels[1].axhline(sum(motion) / len(motion), color=GREY, linestyle="--", label="within a chunk, median")
    for axes, title in zip(
        panels,
        ("position jump where chunks join, rad", "velocity jump where chunks join, rad/s", "success, Wilson 95 %"),
        strict=True,
    ):
        axes.set(title=title, xlabel=f"injected latency, ms ({1e3 / hz:g} ms per tick)")
        axes.set_xticks(range(len(labels)), labels, fontsize=8)
        axes.set_ylim(0, None)
        axes.grid(visible=True, alpha=0.3)
    panels[1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
