"""Compares two evaluations of the same start states: `python -m tools.compare_evaluations <before> <after>`.

Each directory holds `episodes.csv` of an evaluation. Successes are compared pair by pair with the exact McNemar test
(McNemar 1947): only start states that one checkpoint solved and the other did not say anything. Takeovers, where a
person might help (`evaluation.interventions`), are compared by the exact sign test in the same way.
"""

import argparse
import csv
import logging
import math
import sys
from pathlib import Path

import msgspec

from actor.evaluation_report import wilson_interval
from serl_launcher.config.loader import run_main
from serl_launcher.errors import ConfigError

logger = logging.getLogger("tools.compare_evaluations")

TABLE = "episodes.csv"
UNSCORED = ("aborted", "unlabelled")
"""Outcomes that say nothing about the policy."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What two evaluations say together."""

    num_pairs: int
    success_before: float
    success_after: float
    num_gained: int
    """Start states that only the second one solved."""
    num_lost: int
    """Start states that only the first one solved."""
    p_value: float
    """Probability of a difference at least as large if both were equally good (two-sided, exact)."""
    takeovers_before: float
    """Per episode."""
    takeovers_after: float
    num_less_help: int
    """Start states with fewer takeovers in the second one."""
    num_more_help: int
    takeovers_p_value: float
    """The same of the takeovers."""


class Played(msgspec.Struct, frozen=True):
    """What came of one start state at its first attempt."""

    success: bool
    num_takeovers: int


def mcnemar_p_value(num_gained: int, num_lost: int) -> float:
    """Returns the two-sided exact p-value: a fair coin for each discordant pair; 1 without any."""
    num_discordant = num_gained + num_lost
    tail = sum(math.comb(num_discordant, count) for count in range(min(num_gained, num_lost) + 1))
    return min(1.0, 2 * tail / 2**num_discordant) if num_discordant else 1.0


def compare(before: Path, after: Path) -> Comparison:
    """Returns the comparison of two evaluations; raises ConfigError where they share no start states."""
    first, second = read_played(before), read_played(after)
    shared = sorted(set(first) & set(second))
    if not shared:
        raise ConfigError(
            f"{before} and {after} share no start state. Evaluate both with the same evaluation.first_seed, or the "
            "second with evaluation.start_states=<starts.json of the first>."
        )
    pairs = [(first[start], second[start]) for start in shared]
    gained = sum(new.success and not old.success for old, new in pairs)
    lost = sum(old.success and not new.success for old, new in pairs)
    less, more = (sum(sign * (new.num_takeovers - old.num_takeovers) > 0 for old, new in pairs) for sign in (-1, 1))
    return Comparison(
        num_pairs=len(pairs),
        success_before=sum(old.success for old, _ in pairs) / len(pairs),
        success_after=sum(new.success for _, new in pairs) / len(pairs),
        num_gained=gained,
        num_lost=lost,
        p_value=mcnemar_p_value(gained, lost),
        takeovers_before=sum(old.num_takeovers for old, _ in pairs) / len(pairs),
        takeovers_after=sum(new.num_takeovers for _, new in pairs) / len(pairs),
        num_less_help=less,
        num_more_help=more,
        takeovers_p_value=mcnemar_p_value(less, more),
    )


def read_played(directory: Path) -> dict[tuple[int, str], Played]:
    """Returns what came of each scored start state (seed, prompt) at its first attempt; raises ConfigError without any.

    What a fault cut off or nobody judged is in no pair. Tables of evaluations without a person have no column of
    takeovers: there were none.
    """
    path = directory / TABLE if directory.is_dir() else directory
    try:
        with path.open(newline="") as table:
            rows = list(csv.DictReader(table))
        return {
            (int(row["seed"]), row["prompt"]): Played(row["success"] == "True", int(row.get("num_takeovers") or 0))
            for row in rows
            if row.get("attempt", "1") == "1" and row.get("outcome", "") not in UNSCORED
        }
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigError(f"Expected {TABLE} of an evaluation at {path}: {exc!r}.") from exc


def describe(comparison: Comparison) -> str:
    """Returns the comparison in one sentence, in two where anybody helped."""
    told = (
        f"{comparison.num_pairs} start states: {_rate(comparison.success_before, comparison.num_pairs)} before, "
        f"{_rate(comparison.success_after, comparison.num_pairs)} after (Wilson 95 %); {comparison.num_gained} gained, "
        f"{comparison.num_lost} lost, p = {comparison.p_value:.3g} (exact McNemar)."
    )
    if not comparison.takeovers_before and not comparison.takeovers_after:
        return told
    return (
        f"{told} Takeovers per episode: {comparison.takeovers_before:.2f} before, {comparison.takeovers_after:.2f} "
        f"after; fewer at {comparison.num_less_help} start states, more at {comparison.num_more_help}, "
        f"p = {comparison.takeovers_p_value:.3g} (exact sign test)."
    )


def _rate(share: float, count: int) -> str:
    low, high = wilson_interval(round(share * count), count)
    return f"{share:.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_evaluations", description=__doc__)
    parser.add_argument("before", type=Path, help="directory of the first evaluation")
    parser.add_argument("after", type=Path, help="directory of the second")
    parser.add_argument("--json", type=Path, help="also write the comparison to this file")
    chosen = parser.parse_args(sys.argv[1:])
    comparison = compare(chosen.before, chosen.after)
    sys.stdout.write(describe(comparison) + "\n")
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")


if __name__ == "__main__":
    run_main(main)
