"""What a sync costs on this machine: every durable figure of the other benchmarks stands on it."""

import os
import time
from pathlib import Path

from tools.bench_results import Result
from tools.bench_workload import percentile_ms

SIZES = ((4096, "4 KB"), (4 * 2**20, "4 MB"))
NUM_WRITES = 100


def sync_results(folder: Path) -> list[Result]:
    """Overwrites one block of a file again and again, each time synced; returns p50 and p99 by size of the block."""
    results = []
    for size, label in SIZES:
        times = _write(folder / "probe", size)
        results += [
            Result(f"disk: write and sync {label}/p{percent}", percentile_ms(times, percent), "ms")
            for percent in (50, 99)
        ]
    return results


def _write(path: Path, size: int) -> list[float]:
    content = os.urandom(size)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        times = []
        for _ in range(NUM_WRITES + 1):
            began = time.perf_counter()
            os.pwrite(descriptor, content, 0)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return times[1:]  # The first one makes the file.
