"""Chunks that join under latency: `python -m tools.bench_latency --checkpoint DIR`.

The simulator's tick is a tenth of a second of its own time and is played at --hz ticks per second; latencies are in
that wall-clock time, drawn anew for each answer, uniformly within each range.

virtual   success and jumps, on a clock of ticks: repeats itself exactly, needs no quiet machine
wall      does the robot starve, over sockets against a learner server, in real time: nothing else should run
"""

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from actor.evaluate import policy_directory
from actor.local_policy import LocalPolicy
from robot_infra import envs
from serl_launcher.config import RunConfig, load
from tools.bench_latency.arms import Arm
from tools.bench_latency.chart import draw, label_of
from tools.bench_latency.seams import Cell
from tools.bench_latency.virtual import VirtualBench
from tools.bench_latency.wall import WallBench

ARMS = ("switch", "ensemble", "rtc", "rtc:zeros")
RANGES = ("0-0", "50-100", "100-200", "200-300", "300-400", "50-400")
FIRST_SEED = 1_000_000


class Report(msgspec.Struct, kw_only=True):
    """What is written as JSON."""

    hz: float
    execution_horizon: int
    virtual: list[Cell] = []
    wall: list[Cell] = []
    wall_late_ticks: list[int] = []
    """Ticks per cell of `wall` that began late because this machine was busy."""


def main(argv: list[str]) -> int:
    """Runs the parts that were asked for; returns 1 where a robot on the wall clock starved."""
    chosen = _parse(argv)
    config = load(["task=sim_pnp", f"actor.execution_horizon={chosen.execution_horizon}", *chosen.overrides])
    report = Report(hz=chosen.hz, execution_horizon=chosen.execution_horizon)
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as root:
        arms = [Arm.of(name) for name in chosen.arms]
        directory = policy_directory(str(chosen.checkpoint))
        policies = {arm.name: arm.policy(directory, Path(root)) for arm in arms}
        if "virtual" in chosen.parts:
            _run_virtual(chosen, config, arms, policies, report)
        if "wall" in chosen.parts:
            _run_wall(chosen, config, arms, policies, report)
    if report.virtual:
        draw(report.virtual, chosen.output.with_suffix(".png"), hz=chosen.hz)
    sys.stdout.write(table_of(report.virtual + report.wall) + "\n")
    return int(any(cell.num_held for cell in report.wall))


def _run_virtual(
    chosen: argparse.Namespace, config: RunConfig, arms: list[Arm], policies: dict[str, Path], report: Report
) -> None:
    env = envs.build(config.environment)
    loaded = {name: LocalPolicy(directory, env.spec, seed=0) for name, directory in policies.items()}
    env.close()
    bench = VirtualBench(config, loaded, hz=chosen.hz, num_lanes=chosen.lanes)
    seeds = range(FIRST_SEED, FIRST_SEED + chosen.episodes)
    for text in chosen.ranges:
        for arm in arms:
            report.virtual.append(bench.run(arm, _range(text), seeds))
            _note(report, report.virtual[-1], chosen.output)


def _run_wall(
    chosen: argparse.Namespace, config: RunConfig, arms: list[Arm], policies: dict[str, Path], report: Report
) -> None:
    for text in chosen.ranges:
        for arm in arms:
            with tempfile.TemporaryDirectory(prefix="bench-latency-wall-") as root:
                bench = WallBench(config, policies[arm.name], Path(root), hz=chosen.hz)
                cell, num_late = bench.run(arm, _range(text), seconds=chosen.seconds, first_seed=FIRST_SEED)
            report.wall.append(cell)
            report.wall_late_ticks.append(num_late)
            _note(report, cell, chosen.output)


def _note(report: Report, cell: Cell, path: Path) -> None:
    """Writes what is known so far, and says it."""
    sys.stderr.write(_row(cell) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=0))


def table_of(cells: list[Cell]) -> str:
    """Returns the cells as a Markdown table."""
    rows = [
        "| latency, ms | chunks | held ticks | success | position jump p50, p90, rad | velocity jump p50, p90, rad/s |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(_row(cell) for cell in cells)])


def _row(cell: Cell) -> str:
    count, total = cell.successes
    low, high = cell.wilson
    jumps = [
        f"{cell.percentile(name, 50):.{digits}f}, {cell.percentile(name, 90):.{digits}f}"
        for name, digits in (("position_jumps", 3), ("velocity_jumps", 2))
    ]
    return (
        f"| {label_of(cell)} | {cell.arm} | {cell.num_held} of {cell.num_ticks} | {count} of {total} "
        f"[{100 * low:.0f}, {100 * high:.0f}] % | {jumps[0]} | {jumps[1]} |"
    )


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench_latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a policy of sim_pnp, or a checkpoint")
    parser.add_argument("--parts", nargs="+", choices=["virtual", "wall"], default=["virtual"])
    parser.add_argument("--ranges", nargs="+", default=list(RANGES), help="latencies, low-high in milliseconds")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="actor.chunking, rtc with :schedule or without")
    parser.add_argument("--hz", type=float, default=20.0, help="ticks per second")
    parser.add_argument("--execution-horizon", type=int, default=4, help="ticks between two questions")
    parser.add_argument("--episodes", type=int, default=60, help="virtual: start states per cell")
    parser.add_argument("--lanes", type=int, default=20, help="virtual: robots that share policy calls")
    parser.add_argument("--seconds", type=float, default=20.0, help="wall: duration of each cell")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench_latency.json"))
    parser.add_argument("overrides", nargs="*", help="key=value, as the actor takes them")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
