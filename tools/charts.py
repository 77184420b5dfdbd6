"""Pictures for reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.episodes import EpisodeRow, rolling_share

WINDOW = 20
BLUE, GREEN, ORANGE, GREY = "#2b6cb0", "#2f855a", "#dd6b20", "#4a5568"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalPoint:
    """An evaluation drawn into the curve: at which online episode, and what it found."""

    label: str
    num_episodes_before: int
    rate: float
    low: float
    high: float


def draw_success_curve(rows: Sequence[EpisodeRow], points: Sequence[EvalPoint], path: Path) -> None:
    """Writes a PNG: rolling success and intervention rate over episodes, evaluations with Wilson intervals."""
    # A canvas of its own instead of pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Before the window is full, a rate over a few episodes would only be noise.
    first = min(WINDOW, len(rows))
    episodes = range(first, len(rows) + 1) if rows else []
    for label, flags, colour in (
        ("success (with help)", [row.is_success for row in rows], GREY),
        ("success without help", [row.is_unaided_success for row in rows], BLUE),
        ("episodes with a takeover", [row.num_intervention_steps > 0 for row in rows], ORANGE),
    ):
        axes.plot(
            episodes,
            rolling_share(flags, WINDOW)[max(first - 1, 0) :],
            label=f"{label}, last {WINDOW}",
            color=colour,
            linewidth=1.6,
        )
    for point in points:
        errors = [[point.rate - point.low], [point.high - point.rate]]
        axes.errorbar(
            [point.num_episodes_before],
            [point.rate],
            yerr=errors,
            fmt="o",
            color=GREEN,
            capsize=4,
            markersize=6,
            zorder=3,
        )
        is_at_start = point.num_episodes_before == 0
        axes.annotate(
            f"{point.label}: {point.rate:.0%}",
            (point.num_episodes_before, point.rate),
            xytext=(8 if is_at_start else -8, -14),
            ha="left" if is_at_start else "right",
            textcoords="offset points",
            color=GREEN,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
            zorder=5,
        )
    axes.set(xlabel="online episodes", ylabel="share", ylim=(-0.02, 1.04), title="sim_pnp: online rejection sampling")
    axes.grid(visible=True, alpha=0.3)
    if rows:
        _add_minutes(axes, rows)
    axes.plot([], [], "o", color=GREEN, label="evaluation without help, Wilson 95 %")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(path)


def _add_minutes(axes: object, rows: Sequence[EpisodeRow]) -> None:
    """Adds the wall time in minutes as a second scale on top."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    started = rows[0].started_wall_time_s
    count = min(6, len(rows))
    chosen = sorted({round(index * (len(rows) - 1) / max(count - 1, 1)) for index in range(count)})
    top = axes.twiny()
    top.set_xlim(axes.get_xlim())
    top.set_xticks(
        [index + 1 for index in chosen], [f"{(rows[i].started_wall_time_s - started) / 60:.1f}" for i in chosen]
    )
    top.set_xlabel("minutes online")
