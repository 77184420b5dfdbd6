"""One figure of a benchmark with what is asked of it, and how figures are shown."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """A figure.

    Example:
        Result("record/ours/cpu", 1.7, "ms/step", at_most=2.0)
    """

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the figure is as asked; None where nothing is."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


def table_of(results: Sequence[Result]) -> str:
    """Returns the figures as a Markdown table."""
    rows = ["| figure | value | asked | met |", "|---|---|---|---|"]
    for each in results:
        asked = f"<= {each.at_most:g}" if each.at_most is not None else ""
        asked = f">= {each.at_least:g}" if each.at_least is not None else asked
        met = {None: "", True: "yes", False: "**no**"}[each.is_met]
        rows.append(f"| {each.name} | {each.value:.4g} {each.unit} | {asked} | {met} |")
    return "\n".join(rows)


def write_results(path: Path, results: Sequence[Result], **about: object) -> None:
    """Writes the figures and what they were measured on as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = [{**asdict(each), "is_met": each.is_met} for each in results]
    path.write_text(json.dumps({**about, "results": figures}, indent=2) + "\n")


def ratio(name: str, ours: Result, theirs: Result, *, at_least: float | None) -> Result:
    """Returns how many times as much `ours` is."""
    return Result(name, ours.value / theirs.value, "x", at_least=at_least)
