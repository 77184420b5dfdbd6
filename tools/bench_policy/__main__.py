"""Measures sampling, best-of-8 and a training step beside LeRobot 0.4.4, in turns in one process.

LeRobot draws one action chunk per observation: for best-of-8 it gets the observation eight times, in one batch. With
every speed-up of sampling stands the one that arithmetic alone would give, were both to compute at the same rate.
Work is counted in CPU time of this process (other load on the machine does not enter it but through the caches), on
one thread; the wall time of a call is printed beside it. Ratios are medians over rounds, and every round runs both.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from serl_launcher.networks.frozen import FrozenPi0
from serl_launcher.networks.pi0 import ModelInputs, Pi0
from tools.bench_policy.cases import ASKED, SIZES, build, inputs_for
from tools.bench_policy.floor import lerobot_flop, sampling_floor
from tools.bench_policy.lerobot_networks import LerobotNetwork
from tools.bench_results import Result, table_of, write_results

NUM_DRAWS = 8
NUM_STEPS = 10
MAX_DIFFERENCE = 1e-4


@dataclass(slots=True)
class Comparison:
    """Two ways of doing the same."""

    name: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    num_draws: int = 0
    """Chunks per observation, where it is sampling."""


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; 1 where results differ from LeRobot's."""
    arguments = _arguments(argv)
    torch.set_num_threads(arguments.threads)
    results: list[Result] = []
    is_equal = True
    for size in arguments.sizes:
        comparisons, difference = prepare(size, cameras=arguments.cameras, batch=arguments.batch)
        is_equal &= difference <= MAX_DIFFERENCE
        results.append(Result(f"{size}/difference of actions", difference, "relative", at_most=MAX_DIFFERENCE))
        for comparison in comparisons:
            results += measure(size, comparison, rounds=arguments.rounds)
            sys.stderr.write(f"{results[-1].name}: {results[-1].value:.2f}x\n")
            if comparison.num_draws:
                results.append(arithmetic(size, comparison, cameras=arguments.cameras))
    sys.stdout.write(table_of(results) + "\n")
    write_results(arguments.output, results, cpu=platform.processor(), threads=arguments.threads,
                  torch=torch.__version__, cameras=arguments.cameras, batch=arguments.batch)  # fmt: skip
    return 0 if is_equal else 1


def prepare(size: str, *, cameras: int, batch: int) -> tuple[list[Comparison], float]:
    """Returns what to measure at one size, and how far the two samplers' actions are apart, relative to their size."""
    network = build(SIZES[size])
    theirs = LerobotNetwork(network)
    frozen = FrozenPi0(network)
    frozen.prepare(NUM_STEPS)
    one = inputs_for(network.config, batch=1, cameras=cameras)
    shape = (network.config.horizon, network.config.max_action_dim)
    noise = torch.randn((1, NUM_DRAWS, *shape), generator=torch.Generator().manual_seed(2))
    copies = ModelInputs(**{name: getattr(one, name).expand(NUM_DRAWS, *[-1] * (getattr(one, name).dim() - 1))
                            for name in ModelInputs.__slots__})  # fmt: skip
    ours_actions, their_actions = frozen.sample(one, noise)[0], theirs.sample(copies, noise[0], NUM_STEPS)
    difference = ((ours_actions - their_actions).norm() / their_actions.norm()).item()
    theirs.model.eval()
    comparisons = [
        Comparison(
            "sample", lambda: frozen.sample(one, noise[:, :1]), lambda: theirs.sample(one, noise[0, :1], NUM_STEPS), 1
        ),
        Comparison(
            "best-of-8",
            lambda: frozen.sample(one, noise),
            lambda: theirs.sample(copies, noise[0], NUM_STEPS),
            NUM_DRAWS,
        ),
        _training(network, inputs_for(network.config, batch=batch, cameras=cameras)),
    ]
    return comparisons, difference


def _training(network: Pi0, inputs: ModelInputs) -> Comparison:
    """Returns one update each: loss, gradients, AdamW."""
    config = network.config
    trained = build(config)
    generator = torch.Generator().manual_seed(3)
    shape = (len(inputs.state), config.horizon, config.max_action_dim)
    actions, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    flow_time = torch.rand(len(inputs.state), generator=generator)
    model = LerobotNetwork(network)
    model.model.train()

    def update(optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of().backward()
        optimizer.step()

    def our_loss() -> Tensor:
        return trained.flow_error(inputs, actions, noise[:, None], flow_time[:, None]).mean()

    def their_loss() -> Tensor:
        return model.loss(inputs, actions, noise, flow_time)

    adams = [torch.optim.AdamW(parameters, lr=1e-5) for parameters in (trained.parameters(), model.model.parameters())]
    return Comparison("training step", lambda: update(adams[0], our_loss), lambda: update(adams[1], their_loss))


def measure(size: str, comparison: Comparison, *, rounds: int) -> list[Result]:
    """Returns CPU and wall time of both, and the ratio of CPU times."""
    for run in (comparison.ours, comparison.theirs):
        run()
    pairs = [(_timed(comparison.ours), _timed(comparison.theirs)) for _ in range(rounds)]
    (our_cpu, our_wall), (their_cpu, their_wall) = (
        [1e3 * statistics.median(pair[side][clock] for pair in pairs) for clock in range(2)] for side in range(2)
    )
    name = f"{size}/{comparison.name}"
    speedup = statistics.median(theirs[0] / ours[0] for ours, theirs in pairs)
    return [
        Result(f"{name}/ours", our_cpu, f"ms CPU ({our_wall:.1f} wall)"),
        Result(f"{name}/LeRobot", their_cpu, f"ms CPU ({their_wall:.1f} wall)"),
        Result(f"{name}/speed-up", speedup, "x", at_least=ASKED[comparison.name].get(size)),
    ]


def arithmetic(size: str, comparison: Comparison, *, cameras: int) -> Result:
    """Returns by how much LeRobot computes more, as a speed-up."""
    network = build(SIZES[size])
    one = inputs_for(network.config, batch=1, cameras=cameras)
    ours = sampling_floor(network, one, num_draws=comparison.num_draws, num_steps=NUM_STEPS).flop
    theirs = lerobot_flop(network.config, cameras=cameras, num_draws=comparison.num_draws, num_steps=NUM_STEPS)
    return Result(f"{size}/{comparison.name}/by arithmetic alone", theirs / ours, "x")


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_policy", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each; they alternate")
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="of the training step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench_policy/bench_policy.json"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
