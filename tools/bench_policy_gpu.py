"""Times π0 and π0.5 at any size on one device, with the least that arithmetic and memory allow beside it.

On a GPU: full size, bfloat16, one CUDA graph for the whole call. Without one it runs all the same at a small size, so
that the program itself is known to work; its figures are then those of a CPU. LeRobot 0.4.4 samples the same actions
from the same weights, as it comes: eager; for best-of-8 it gets the observation eight times.

    python -m tools.bench_policy_gpu                             # the published size on a GPU, pi0_tiny on a CPU
    python -m tools.bench_policy_gpu --policy pi05 --cameras 2 --train
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from serl_launcher.config.acting import ActingConfig
from serl_launcher.config.loader import load
from serl_launcher.config.policy import PolicyConfig
from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.networks.build import build_network
from serl_launcher.networks.pi0 import ModelInputs, Pi0
from serl_launcher.networks.precision import cast_
from serl_launcher.networks.tuning import trainable_fraction, tune_
from serl_launcher.policies.acting import FrozenSampler
from tools.bench_policy.cases import inputs_for
from tools.bench_policy.floor import Floor, sampling_floor
from tools.bench_policy.lerobot_networks import LerobotNetwork
from tools.bench_results import Result, table_of, write_results

MODES = {
    "full": TuningConfig(gradient_checkpointing=True),
    "lora": TuningConfig(gradient_checkpointing=True, lora=LoraConfig(language_rank=16, expert_rank=32)),
    "expert-only": TuningConfig(expert_only=True),
}
PROMISED_MS = 20.0
"""One chunk of the published π0: 3 cameras, 10 steps, bfloat16, on an H200."""
LEROBOT = "LeRobot"
_WARM_UPS = 3


def main(argv: list[str] | None = None) -> int:
    """Measures what the command line asks for; prints a table and writes it as JSON."""
    arguments = _arguments(argv)
    device = torch.device(arguments.device)
    name = arguments.policy or ("pi0" if device.type == "cuda" else "pi0_tiny")
    config = load([f"policy={name}"]).policy
    results = sampling(config, device, arguments)
    if arguments.train:
        for mode, tuning in MODES.items():
            results += training(config, device, arguments, mode=mode, tuning=tuning)
    sys.stdout.write(table_of(results) + "\n")
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    write_results(arguments.output, results, policy=name, hardware=hardware, torch=torch.__version__,
                  cameras=arguments.cameras, num_steps=arguments.num_steps, precision=arguments.precision)  # fmt: skip
    return 0


def sampling(config: PolicyConfig, device: torch.device, arguments: argparse.Namespace) -> list[Result]:
    """Returns the time of one chunk and of a best-of-8, in every way of running, and the floor."""
    network = _drawn(config, device)
    if arguments.precision == "bfloat16":
        cast_(network, torch.bfloat16)
    inputs = _on(inputs_for(config, batch=1, cameras=arguments.cameras), device)
    shape = (config.horizon, config.max_action_dim)
    results, ways = [], _samplers(network, device, arguments)
    for draws in (1, 8):
        noise = torch.randn((1, draws, *shape), device=device)
        floor = sampling_floor(network, inputs, num_draws=draws, num_steps=arguments.num_steps)
        results += _floor_results(f"{draws} chunks", floor, arguments)
        expected = ways["plain"](inputs, noise)
        for way, sampler in ways.items():
            ms = _median_ms(lambda run=sampler, x=noise: run(inputs, x), device, arguments.rounds)
            is_promised = way == "graph" and draws == 1 and arguments.policy in (None, "pi0")
            results.append(Result(f"{draws} chunks/{way}", ms, "ms", at_most=PROMISED_MS if is_promised else None))
        if LEROBOT in ways:
            difference = (ways[LEROBOT](inputs, noise) - expected).norm() / (expected - noise).norm()
            results.append(Result(f"{draws} chunks/{LEROBOT}, difference of actions", difference.item(), "of the way"))
    return results


def _samplers(network: Pi0, device: torch.device, arguments: argparse.Namespace) -> dict[str, Callable]:
    """Returns ways of sampling by name; each takes inputs and noise."""
    steps = arguments.num_steps

    @torch.no_grad()
    def plain(inputs: ModelInputs, noise: torch.Tensor) -> torch.Tensor:
        return network.sample(inputs, noise, steps)

    network.config.num_steps = steps
    ways: dict[str, Callable] = {"plain": plain}
    ways["frozen"] = FrozenSampler(network, ActingConfig(cuda_graph=False)).sample
    if device.type == "cuda":
        ways["graph"] = FrozenSampler(network, ActingConfig()).sample
    if arguments.compile:
        ways["compiled"] = FrozenSampler(network, ActingConfig(compile=True)).sample
    if arguments.lerobot:
        ways[LEROBOT] = _lerobot_sampler(network, device, arguments)
    return ways


def _lerobot_sampler(network: Pi0, device: torch.device, arguments: argparse.Namespace) -> Callable:
    """Returns LeRobot's way, which draws one chunk per observation."""
    theirs = LerobotNetwork(network, dtype=arguments.precision)
    theirs.model.to(device).eval()

    @torch.no_grad()
    def sample(inputs: ModelInputs, noise: torch.Tensor) -> torch.Tensor:
        copies = {name: getattr(inputs, name) for name in ModelInputs.__slots__}
        copies = {name: each.expand(noise.shape[1], *each.shape[1:]) for name, each in copies.items()}
        return theirs.sample(ModelInputs(**copies), noise[0], arguments.num_steps)[None]

    return sample


def training(
    config: PolicyConfig, device: torch.device, arguments: argparse.Namespace, *, mode: str, tuning: TuningConfig
) -> list[Result]:
    """Returns samples per second and peak memory of updates under bfloat16 autocast with float32 weights."""
    network = _drawn(config, device)
    tune_(network, tuning)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    inputs = _on(inputs_for(config, batch=arguments.batch, cameras=arguments.cameras), device)
    shape = (arguments.batch, 1, config.horizon, config.max_action_dim)
    noise, flow_time = torch.randn(shape, device=device), torch.rand(shape[:2], device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = network.flow_error(inputs, noise[:, 0], noise, flow_time).mean()
        loss.backward()
        optimizer.step()

    ms = _median_ms(update, device, max(arguments.rounds // 4, 3))
    results = [
        Result(f"train {mode}/throughput", 1e3 * arguments.batch / ms, "samples/s"),
        Result(f"train {mode}/trained weights", 100 * trainable_fraction(network), "%"),
    ]
    if device.type == "cuda":
        results.append(Result(f"train {mode}/peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB"))
    return results


def _floor_results(name: str, floor: Floor, arguments: argparse.Namespace) -> list[Result]:
    ms = floor.milliseconds(tflops=arguments.tflops, terabytes_per_s=arguments.terabytes_per_s)
    return [
        Result(f"{name}/floor: arithmetic", floor.flop / 1e12, "TFLOP"),
        Result(f"{name}/floor: weights read", floor.weight_bytes / 1e9, "GB"),
        Result(f"{name}/floor: time", ms, f"ms at {arguments.tflops:g} TFLOP/s and {arguments.terabytes_per_s:g} TB/s"),
    ]


def _drawn(config: PolicyConfig, device: torch.device) -> Pi0:
    with torch.device(device):
        network = build_network(config)
    network.initialize_()
    return network


def _on(inputs: ModelInputs, device: torch.device) -> ModelInputs:
    return ModelInputs(**{name: getattr(inputs, name).to(device) for name in ModelInputs.__slots__})


def _median_ms(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Returns the median time of a call, the device's work included."""
    durations = []
    for number in range(_WARM_UPS + rounds):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= _WARM_UPS:
            durations.append(1e3 * (time.perf_counter() - started))
    return statistics.median(durations)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_policy_gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--policy", help="a file of config/policy; default: pi0 on a GPU, pi0_tiny on a CPU")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16" if has_gpu else "float32")
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--train", action="store_true", help="also training: full, LoRA, expert only")
    parser.add_argument("--batch", type=int, default=8, help="of training")
    parser.add_argument("--no-lerobot", dest="lerobot", action="store_false", help="without LeRobot beside it")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes)")
    parser.add_argument("--tflops", type=float, default=989.0, help="of the device, for the floor (H200: 989)")
    parser.add_argument("--terabytes-per-s", type=float, default=4.8, help="of its memory (H200: 4.8)")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench_policy/bench_policy_gpu.json"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
