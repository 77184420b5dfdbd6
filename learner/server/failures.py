"""What a failed policy call leaves behind: memory that its frames hold, a device that may be lost."""

import sys
import traceback


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a model ran out of memory: numpy, torch on a CPU (a RuntimeError) and torch on a GPU all say so."""
    return isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError" or "allocate memory" in str(exc)


def forget_frames(exc: BaseException) -> None:
    """Drops the variables of the frames that an exception passed through: they hold the tensors of the failed call."""
    seen: set[int] = set()
    left: list[BaseException | None] = [exc]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        left += [each.__cause__, each.__context__]


def release_device_memory() -> None:
    """Gives memory that torch keeps for later back to the device, so that another size of batch finds room."""
    torch = sys.modules.get("torch")  # Without it no policy has used a device.
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def has_lost_device(exc: BaseException, device: object) -> bool:
    """Whether the GPU refuses everything from now on, as after an illegal access: only a new process gets it back.

    `device` is the one that the policy is on, None where it does not say.
    """
    torch = sys.modules.get("torch")
    if torch is None or "CUDA error" not in str(exc):
        return False
    try:
        torch.cuda.synchronize(device)
    except (RuntimeError, AssertionError):  # AssertionError: a torch that was built without CUDA.
        return True
    return False
