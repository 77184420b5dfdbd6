"""What a publication of a large policy costs the trainer's loop, and how long it takes beside a plain copy."""

import dataclasses
import os
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
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
_KEPT = 2
"""Publications that stay; a disk that has room for more changes nothing."""


def publication_cost(bench: Bench, *, size_bytes: int = GIGABYTE) -> list[Result]:
    """Measures publications of about `size_bytes`: the first ones, and those that write over a deleted one's file.

    The optimizer has no state, so that four times the policy's size is memory enough; an update with AdamW takes
    longer, of which a publication is a smaller share.
    """
    root = bench.fresh("publication")
    policy = _large_policy(size_bytes)
    optimizer = torch.optim.SGD(policy.network.parameters(), lr=1e-6)
    update_s = min(_timed_update(policy, optimizer) for _ in range(2))
    publisher = BackgroundPublisher(Publisher(root / "policies", keep=_KEPT))
    timed = _Timed(publisher, PolicySnapshots(), policy)
    first = [timed.publish(version) for version in range(1, _KEPT + 2)][1:]  # The first makes the memory.
    weights = root / "policies" / f"{_KEPT + 1:08d}" / "model.safetensors"
    first_copy_s = _timed_copy(weights, root / "first copy")
    copies_s, later = [], []
    for version in range(_KEPT + 2, _KEPT + 5):
        copies_s.append(_timed_copy(weights, root / "copy"))
        (root / "copy").unlink()
        later.append(timed.publish(version))
        weights = root / "policies" / f"{version:08d}" / "model.safetensors"
    publisher.publish(partial(timed.snapshots.take, policy), version + 1)
    beside_s = _timed_update(policy, optimizer)
    publisher.close()
    (first_s, _), (wall_s, loop_s) = _median(first), _median(later)
    copy_s = float(np.median(copies_s))
    return [
        Result("publication/size", weights.stat().st_size / GIGABYTE, "GB"),
        Result("publication/one update", update_s, "s"),
        Result("publication/cost of the loop", loop_s, "s"),
        Result("publication/cost of the loop to one update", 100 * loop_s / update_s, "%", at_most=5.0),
        Result("publication/an update while one is written, to one alone", beside_s / update_s, "x"),
        Result("publication/wall", wall_s, "s"),
        Result("publication/plain copy of the file, synced", copy_s, "s"),
        Result("publication/wall to a plain copy", wall_s / copy_s, "x", at_most=1.5),
        Result("publication/wall, before a deleted one's file is there", first_s, "s"),
        Result("publication/plain copy of the file, synced, memory not yet found", first_copy_s, "s"),
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class _Timed:
    """Publishes and waits."""

    publisher: BackgroundPublisher
    snapshots: PolicySnapshots
    policy: Pi0Policy

    def publish(self, version: int) -> tuple[float, float]:
        """Returns the seconds until it was there, and those that the trainer's loop spent."""
        began_s = time.perf_counter()
        self.publisher.publish(partial(self.snapshots.take, self.policy), version)
        loop_s = time.perf_counter() - began_s
        self.publisher.wait()
        return time.perf_counter() - began_s, loop_s


def _median(publications: list[tuple[float, float]]) -> tuple[float, float]:
    wall_s, loop_s = np.median(publications, axis=0)
    return float(wall_s), float(loop_s)


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
    return time.perf_counter() - began_s
