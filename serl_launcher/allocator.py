"""What happens to freed memory: kept for the next frame, or given back after a rare large piece of work.

glibc gives large freed blocks back to the system at once, and takes them anew for the next message: the kernel then
clears every page again. On a machine of two cores that was a third of the CPU time of a step with raw pictures.
"""

import ctypes

_LIBC = ctypes.CDLL(None)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_STEP_BYTES = 1024**2
"""A heap grows by at least so much."""


def keep_freed_memory(num_bytes: int = 64 * 1024**2) -> bool:
    """Lets the process keep up to `num_bytes` of freed memory per heap; returns whether this system knows how.

    Call it before the threads start.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is None:  # Not glibc: nothing to tell, nothing lost but time.
        return False
    wanted = {_M_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, _M_TRIM_THRESHOLD: num_bytes, _M_TOP_PAD: _STEP_BYTES}
    return all(mallopt(option, value) for option, value in wanted.items())


def give_back_freed_memory() -> None:
    """Returns to the system what a large piece of work has freed, as far as this system knows how."""
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)
