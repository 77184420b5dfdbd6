"""Shifts the wall clock of a Python process by the offset in the file CHAOS_CLOCK names (8 bytes, float64 seconds).

Python imports it by itself where its folder is on PYTHONPATH, so that the real programs run unchanged under a clock
that jumps. The monotonic clock is left alone, as the system leaves it.
"""

import mmap
import os
import struct
import time
from pathlib import Path


def shift_wall_clock(path: Path) -> None:
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real_time = time.time

    def shifted_time() -> float:
        return real_time() + struct.unpack_from("<d", shared)[0]

    time.time = shifted_time
    time.time_ns = lambda: int(1e9 * shifted_time())


if "CHAOS_CLOCK" in os.environ:
    shift_wall_clock(Path(os.environ["CHAOS_CLOCK"]))
