"""Serving, measured: `python -m tools.bench_serving`; figures as a table and as JSON.

Servers and actors are processes of this machine. Nothing else should run. Scenarios: overhead, actors, throughput,
training, recording, publication, restart.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.bench_results import Result, table_of, write_results
from tools.bench_serving import scenarios
from tools.bench_serving.scenarios import Bench


def _publication(bench: Bench) -> list[Result]:
    from tools.bench_serving.publication import publication_cost  # Imports torch.

    return publication_cost(bench)


SCENARIOS: dict[str, Callable[[Bench], list[Result]]] = {
    "overhead": scenarios.overhead,
    "actors": scenarios.many_actors,
    "throughput": scenarios.throughput,
    "training": scenarios.while_training,
    "recording": scenarios.while_recording,
    "publication": _publication,
    "restart": scenarios.restart,
}


def main(argv: list[str]) -> int:
    """Runs scenarios; returns 0, also where a figure is not as asked."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_serving", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help=f"some of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench_serving.json"))
    arguments = parser.parse_args(argv)
    unknown = set(arguments.scenarios) - SCENARIOS.keys()
    if unknown:
        parser.error(f"expected scenarios among {sorted(SCENARIOS)}, got {sorted(unknown)}")
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as root:
        bench = Bench(Path(root), arguments.seconds)
        for name in arguments.scenarios or SCENARIOS:
            sys.stderr.write(f"{name} ...\n")
            results += SCENARIOS[name](bench)
            write_results(arguments.output, results, num_cpus=os.cpu_count(), seconds=arguments.seconds)
    sys.stdout.write(table_of(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
