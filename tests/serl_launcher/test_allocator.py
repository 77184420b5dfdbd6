from pathlib import Path

import numpy as np

from serl_launcher.allocator import give_back_freed_memory


def private_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


def test_freed_memory_is_given_back() -> None:
    give_back_freed_memory()  # What earlier tests left would be used again, and nothing would grow.
    before = private_bytes()
    pieces = [np.ones(10_000) for _ in range(1000)]  # Small enough to come from the heap.
    assert private_bytes() > before + 40_000_000
    last = pieces[-1]  # Keeps the end of the heap in use.
    del pieces
    give_back_freed_memory()
    assert private_bytes() < before + 20_000_000
    assert last[0] == 1
