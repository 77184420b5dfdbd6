"""Compares two evaluations of the same start states: `python -m tools.compare_evaluations <before> <after>`.

Each directory holds `episodes.csv` of an evaluation. Successes are compared pair by pair with the exact McNemar test
(McNemar 1947): only start states that one checkpoint solved and the other did not say anything.
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


def mcnemar_p_value(num_gained: int, num_lost: int) -> float:
    """Returns the two-sided exact p-value: a fair coin for each discordant pair; 1 without any."""
    num_discordant = num_gained + num_lost
    tail = sum(math.comb(num_discordant, count) for count in range(min(num_gained, num_lost) + 1))
    return min(1.0, 2 * tail / 2**num_discordant) if num_discordant else 1.0


def compare(before: Path, after: Path) -> Comparison:
    """Returns the comparison of two evaluations; raises ConfigError where they share no start states."""
    first, second = read_successes(before), read_successes(after)
    shared = sorted(set(first) & set(second))
    if not shared:
        raise ConfigError(
            f"{before} and {after} share no start state. Evaluate both with the same evaluation.first_seed, or the "
            "second with evaluation.start_states=<starts.json of the first>."
        )
    gained = sum(second[start] and not first[start] for start in shared)
    lost = sum(first[start] and not second[start] for start in shared)
    return Comparison(
        num_pairs=len(shared),
        success_before=sum(first[start] for start in shared) / len(shared),
        success_after=sum(second[start] for start in shared) / len(shared),
        num_gained=gained,
        num_lost=lost,
        p_value=mcnemar_p_value(gained, lost),
    )


def read_successes(directory: Path) -> dict[tuple[int, str], bool]:
    """Returns the success of each start state (seed, prompt) at its first attempt; raises ConfigError without any."""
    path = directory / TABLE if directory.is_dir() else directory
    try:
        with path.open(newline="") as table:
            rows = list(csv.DictReader(table))
        return {
            (int(row["seed"]), row["prompt"]): row["success"] == "True"
            for row in rows
            if row.get("attempt", "1") == "1"
        }
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigError(f"Expected {TABLE} of an evaluation at {path}: {exc!r}.") from exc


def describe(comparison: Comparison) -> str:
    """Returns the comparison in one sentence."""
    return (
        f"{comparison.num_pairs} start states: {_rate(comparison.success_before, comparison.num_pairs)} before, "
        f"{_rate(comparison.success_after, comparison.num_pairs)} after (Wilson 95 %); {comparison.num_gained} gained, "
        f"{comparison.num_lost} lost, p = {comparison.p_value:.3g} (exact McNemar)."
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
