"""Live progress: a table that is redrawn on a terminal, one line per 5 s elsewhere."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from serl_launcher.publication import LATEST
from serl_launcher.run_directory import RunDirectory
from serl_launcher.status import JSON, read_status
from tools.episodes import EpisodeTable, share

LINE_PERIOD_S = 5.0
WINDOW = 20


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """How a run stands, from its status files and its dataset."""

    success: str = "-"
    """Share of successes among the last episodes."""
    interventions: str = "-"
    replay: str = "-"
    update_to_data: str = "-"
    policy: str = "-"
    """Version and age of the newest policy."""
    updates: str = "-"

    def rows(self) -> dict[str, str]:
        """Returns captions and values in the order in which they are shown."""
        return {
            f"success, last {WINDOW}": self.success,
            f"interventions, last {WINDOW}": self.interventions,
            "replay": self.replay,
            "updates": self.updates,
            "updates per step": self.update_to_data,
            "policy": self.policy,
        }


def observe(run: RunDirectory, episodes: EpisodeTable) -> Snapshot:
    """Returns the snapshot of a run that is going on; what is not known yet is a dash."""
    trainer = read_status(run.status("trainer")) or {}
    snapshot = Snapshot()
    rows = episodes.read()
    if rows:
        last = rows[-WINDOW:]
        unaided = share([row.is_unaided_success for row in last])
        snapshot.success = f"{share([row.is_success for row in last]):.0%} ({unaided:.0%} without help)"
        helped = share([row.num_intervention_steps > 0 for row in last])
        steps = sum(row.num_intervention_steps for row in last) / max(sum(row.length for row in last), 1)
        snapshot.interventions = f"{helped:.0%} of episodes, {steps:.0%} of steps"
        snapshot.replay = f"{sum(row.length for row in rows)} steps, {len(rows)} episodes"
    if trainer:
        loss = _number(trainer.get("loss"))
        snapshot.updates = f"{trainer.get('updates', 0)} ({_number(trainer.get('updates_per_s')) or 0:.1f}/s)"
        snapshot.updates += f", loss {loss:.4f}" if loss is not None else ""
        snapshot.update_to_data = f"{_number(trainer.get('update_to_data')) or 0:.2f}"
        snapshot.policy = f"version {trainer.get('policy_version', '-')}{_age(run.policies / LATEST)}"
    return snapshot


class Display:
    """Shows the phase, what is known of the run, the time left, and messages."""

    def __init__(self, console: Console | None = None) -> None:
        """Draws on `console`, standard output by default."""
        self.console = console or Console(file=sys.stdout, highlight=False)
        self._live: Live | None = None
        self._line_due_at = 0.0

    def __enter__(self) -> "Display":
        """Starts drawing where there is a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops drawing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, message: str) -> None:
        """Prints a message that stays."""
        self.console.print(message, markup=False, soft_wrap=True)

    def show(self, title: str, snapshot: Snapshot, *, elapsed_s: float, left_s: float, last_line: str = "") -> None:
        """Shows where the demo is; without a terminal at most one line per 5 s."""
        times = f"{_minutes(elapsed_s)} passed, about {_minutes(left_s)} left"
        if self._live is not None:
            self._live.update(_table(title, {**snapshot.rows(), "time": times, "last message": last_line}))
            return
        if time.monotonic() >= self._line_due_at:
            self._line_due_at = time.monotonic() + LINE_PERIOD_S
            known = [f"{caption} {value}" for caption, value in snapshot.rows().items() if value != "-"]
            self.tell("; ".join([f"[{title}] {times}", *known]))


def last_line(log: Path) -> str:
    """Returns the last line of a log file without its time stamp; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1][:110] if lines else ""


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left", width=100)
    table.add_column(style="bold", min_width=22, no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for caption, value in rows.items():
        table.add_row(caption, value)
    return table


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}"


def _age(latest: Path) -> str:
    try:
        return f", {time.time() - latest.stat().st_mtime:.0f} s old"
    except OSError:
        return ""


def _number(value: JSON) -> float | None:
    return float(value) if isinstance(value, int | float) else None
