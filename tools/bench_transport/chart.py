"""The picture of the transport benchmark: throughput, latency and cost per step over the number of actors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.bench_transport.ours import Throughput


def draw_scaling(curves: Mapping[str, Sequence[Throughput]], path: Path) -> None:
    """Writes a PNG with one curve per pattern in each of three panels."""
    # A canvas of its own instead of pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    counts = sorted({point.num_actors for points in curves.values() for point in points})
    for name, points in curves.items():
        for axes, values in (
            (panels[0], [point.steps_per_s for point in points]),
            (panels[1], [point.cpu_ms_per_step for point in points]),
            (panels[2], [point.p99_ms for point in points]),
        ):
            axes.plot([point.num_actors for point in points], values, "o-", label=name)
    for axes, label in zip(panels, ("steps/s", "CPU ms per step, both sides", "p99 acknowledgement, ms"), strict=True):
        axes.set(xlabel="actors", ylabel=label, ylim=(0, None))
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.grid(visible=True, alpha=0.3)
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
