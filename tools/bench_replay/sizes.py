"""How long a dataset takes to open, and what the process then holds in memory, by its number of steps."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from serl_launcher.datasets.writer import DatasetWriter
from tools.bench_results import Result
from tools.bench_workload import bench_robot, encode_all, make_frames, record_of

EPISODE_STEPS = 200
PICTURE = 32
"""Side in pixels: what is opened does not depend on it, and 200 000 steps fit on any disk."""
NUM_SAMPLES = 4096


def open_results(root: Path, sizes: list[int]) -> list[Result]:
    """Writes one growing dataset and opens it at each size, in a process of its own."""
    spec = bench_robot(size=PICTURE, cameras=3)
    observations = encode_all(make_frames(EPISODE_STEPS + 1, spec), spec, EPISODE_STEPS + 1)
    record = record_of(observations, "bench-0")
    writer = DatasetWriter(root, spec)
    results = []
    for size in sorted(sizes):
        while writer.num_steps < size:
            record.episode_id = f"bench-{writer.num_episodes}"
            writer.append(record)
        results += _opened(root, size)
    return results


def _opened(root: Path, size: int) -> list[Result]:
    command = [sys.executable, "-m", "tools.bench_replay.sizes", str(root)]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = json.loads(done.stdout)
    label = f"{size // 1000}k steps"
    return [
        Result(f"open/ours/{label}", found["open_s"], "s", at_most=5.0),
        Result(f"memory/ours/{label}/opened", found["opened_mb"], "MB private"),
        Result(f"memory/ours/{label}/{NUM_SAMPLES} samples later", found["sampled_mb"], "MB private"),
    ]


def main(root: Path) -> None:
    """Opens a dataset, samples from it, and writes what that took as JSON."""
    from learner.replay.chunks import ChunkSampler
    from learner.replay.reader import ReplayDataset

    began = time.perf_counter()
    dataset = ReplayDataset(root)
    open_s, opened_mb = time.perf_counter() - began, _private_mb()
    sampler = ChunkSampler(dataset, horizon=50, cameras=dataset.camera_names)
    rng = np.random.default_rng(0)
    for _ in range(NUM_SAMPLES // 64):
        sampler.sample(rng.integers(dataset.num_steps, size=64))
    sys.stdout.write(json.dumps({"open_s": open_s, "opened_mb": opened_mb, "sampled_mb": _private_mb()}))


def _private_mb() -> float:
    """Returns the resident memory that is this process's own; mapped files belong to the page cache."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
