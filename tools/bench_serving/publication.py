"""What a publication of a large policy costs the trainer's loop, and how long it takes beside a plain copy."""

import dataclasses
import os
import shutil
import time
from pathlib import Path

import torch
from torch import Tensor

from learner.trainer.publishing import BackgroundPublisher
from serl_launcher.policies import load_policy
from serl_launcher.policies.pi0 import Pi0Policy
from serl_launcher.policies.snapshots import PolicySnapshots
from serl_launcher.publication import Publisher
from tools.bench_results import Result
from tools.bench_serving.scenarios import BASE_POLICY, Bench
from tools.bench_serving.training import random_loss

BATCH = 8
GIGABYTE = 10**9


def publication_cost(bench: Bench, *, size_bytes: int = GIGABYTE) -> list[Result]:
    """Measures publications of about `size_bytes` after two that made the memory.

    The optimizer has no state, so that four times the policy's size is memory enough; an update with AdamW takes
    longer, of which a publication is a smaller share.
    """
    root = bench.fresh("publication")
    policy = _large_policy(size_bytes)
    optimizer = torch.optim.SGD(policy.network.parameters(), lr=1e-6)
    update_s = min(_timed_update(policy, optimizer) for _ in range(2))
    publisher, snapshots = BackgroundPublisher(Publisher(root / "policies")), PolicySnapshots()
    publisher.publish(snapshots.take(policy), 1)
    publisher.wait()
    loops_s, walls_s, copies_s = [], [], []
    weights = root / "policies" / "00000001" / "model.safetensors"
    for version in (2, 3, 4):
        copies_s.append(_timed_copy(weights, root / "copy"))
        began_s = time.perf_counter()
        publisher.publish(snapshots.take(policy), version)
        loops_s.append(time.perf_counter() - began_s)
        publisher.wait()
        walls_s.append(time.perf_counter() - began_s)
        weights = root / "policies" / f"{version:08d}" / "model.safetensors"
    publisher.publish(snapshots.take(policy), 5)
    beside_s = _timed_update(policy, optimizer)
    publisher.close()
    loop_s, wall_s, copy_s = (sorted(values)[1] for values in (loops_s, walls_s, copies_s))
    weights = root / "policies" / "00000005" / "model.safetensors"
    size = weights.stat().st_size / GIGABYTE
    return [
        Result("publication/size", size, "GB"),
        Result("publication/one update", update_s, "s"),
        Result("publication/cost of the loop", loop_s, "s"),
        Result("publication/cost of the loop to one update", 100 * loop_s / update_s, "%", at_most=5.0),
        Result("publication/an update while one is written, to one alone", beside_s / update_s, "x"),
        Result("publication/wall", wall_s, "s"),
        Result("publication/plain copy of the file, synced", copy_s, "s"),
        Result("publication/wall to a plain copy", wall_s / copy_s, "x", at_most=1.5),
    ]


def _large_policy(size_bytes: int) -> Pi0Policy:
    """Returns the simulator's policy with feed-forward layers so wide that its float32 weights have about that size."""
    small = load_policy(BASE_POLICY)
    width = small.config.language.width
    mlp = size_bytes // (4 * 3 * width * small.config.language.depth)
    config = dataclasses.replace(small.config, language=dataclasses.replace(small.config.language, mlp_dim=mlp))
    policy = Pi0Policy(config, small.spec, small.tokenizer)
    policy.network.initialize_()
    policy.set_norm_stats(small.norm_stats)
    return policy


def _timed_update(policy: Pi0Policy, optimizer: torch.optim.Optimizer) -> float:
    began_s = time.perf_counter()
    loss: Tensor = random_loss(policy, BATCH)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return time.perf_counter() - began_s


def _timed_copy(source: Path, destination: Path) -> float:
    began_s = time.perf_counter()
    shutil.copyfile(source, destination)
    with destination.open("rb+") as file:
        os.fsync(file.fileno())
    taken_s = time.perf_counter() - began_s
    destination.unlink()
    return taken_s
