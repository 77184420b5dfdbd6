"""Keeps Python itself out of the control loop's way.

Two things of the interpreter delay a loop that is due: another thread that computes keeps the interpreter for a switch
interval (5 ms by default, a quarter of a tick at 50 Hz), and the garbage collector walks every object that was ever
made. The first is shortened; what was made at the start is exempted from the second, which from then on looks at the
objects of the last episodes only.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator

SWITCH_INTERVAL_S = 0.0005


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Makes the loop inside it start on time; what was before is put back at the end."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval_s)
