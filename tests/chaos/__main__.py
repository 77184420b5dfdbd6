"""`python -m tests.chaos --steps 20000 --faults 112 --seed 0`: kills, stalls and starves a learner and its actors."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.campaign import Campaign, Hang, Result
from tests.chaos.faults import KINDS, KINDS_WITH_TRAINER


def main() -> int:
    """Runs one campaign; returns 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--faults", type=int, default=112, help="each kind 8 times where there are 14 kinds")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--rate-hz", type=float, default=25.0, help="steps per second and actor")
    parser.add_argument(
        "--trainer", action=argparse.BooleanOptionalAction, default=True,
        help="train a policy meanwhile, and kill its trainer too; without, data is collected alone",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=1.0, help="factor on waits, for a machine that is busy")
    parser.add_argument("--directory", type=Path, help="kept; without it a temporary one, kept after a violation")
    chosen = parser.parse_args()
    directory = chosen.directory or Path(tempfile.mkdtemp(prefix="chaos-"))
    campaign = Campaign(
        directory=directory, num_steps=chosen.steps, num_faults=chosen.faults, num_actors=chosen.actors,
        rate_hz=chosen.rate_hz, seed=chosen.seed, tell=_teller(), has_trainer=chosen.trainer,
        patience=chosen.patience,
        kinds=KINDS_WITH_TRAINER if chosen.trainer else KINDS,
    )  # fmt: skip
    try:
        result = campaign.run()
    except Hang as exc:
        sys.stdout.write(f"HANG: {exc} See the logs in {directory}.\n")
        return 1
    sys.stdout.write(summary(result, seed=chosen.seed))
    if not result.verdict.is_clean:
        sys.stdout.write(f"The files are kept in {directory}.\n")
        return 1
    if chosen.directory is None:
        shutil.rmtree(directory)
    return 0


def summary(result: Result, *, seed: int) -> str:
    """Returns the result as a table for people."""
    verdict = result.verdict
    lines = [f"\n{'faults':44}{sum(result.faults.values()):8d}"]
    lines += [f"  {kind:42}{count:8d}" for kind, count in sorted(result.faults.items())]
    lines += [
        f"{'episodes':44}{verdict.num_episodes:8d}",
        f"{'  of these only in the journal':44}{result.num_unsealed:8d}",
        f"{'steps':44}{verdict.num_steps:8d}",
        f"{'starts of actors':44}{result.num_actor_starts:8d}",
        f"{'connections':44}{result.num_connections:8d}",
        f"{'wall time, s':44}{result.wall_s:8.0f}",
    ]
    for name in ("lost", "duplicated", "reordered", "damaged", "invented", "problems"):
        found = getattr(verdict, name)
        lines.append(f"{name:44}{len(found):8d}")
        lines += [f"    {each}" for each in found[:10]]
    lines += [f"note: {note}" for note in result.notes]
    lines.append(f"seed {seed}: {'every promise was kept' if verdict.is_clean else 'VIOLATION'}")
    return "\n".join(lines) + "\n"


def _teller():
    began_s = time.monotonic()

    def tell(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began_s:6.1f} s  {line}\n")
        sys.stdout.flush()

    return tell


if __name__ == "__main__":
    sys.exit(main())
