"""What the ranks of one training job must do alike."""

from enum import IntEnum

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


class Verdict(IntEnum):
    """What every rank does next."""

    WAIT = 0
    UPDATE = 1
    STOP = 2
    FINISH = 3
    RESTART_SCHEDULE = 4


class Ranks:
    """The processes that train together; rank 0 decides for all and is the only one that writes files.

    It asks `torch.distributed`, not accelerate: with DeepSpeed on CPUs accelerate believes that it is alone.
    """

    def __init__(self, device: torch.device) -> None:
        """Uses the process group, if there is one, with tensors on `device`."""
        self._device = device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.number == 0

    @property
    def number(self) -> int:
        """This process's number, from 0."""
        return dist.get_rank() if dist.is_initialized() else 0

    @property
    def count(self) -> int:
        """How many processes train together."""
        return world_size()

    def agree(self, verdict: Verdict) -> Verdict:
        """Returns rank 0's verdict on every rank; a difference would leave one waiting in an all-reduce for ever."""
        if self.count == 1:
            return verdict
        shared = torch.tensor([int(verdict)], device=self._device)
        dist.broadcast(shared, src=0)
        return Verdict(int(shared.item()))

    def share(self, numbers: np.ndarray) -> np.ndarray:
        """Returns rank 0's numbers, int64, on every rank; the others' own ones only have to be as many."""
        if self.count == 1:
            return numbers
        shared = torch.from_numpy(numbers).to(self._device)
        dist.broadcast(shared, src=0)
        return shared.cpu().numpy()

    def lowest_and_highest(self, number: int) -> tuple[int, int]:
        """Returns the extremes of what the ranks say; every rank calls it."""
        if self.count == 1:
            return number, number
        extremes = torch.tensor([-number, number], device=self._device)
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        return -int(extremes[0]), int(extremes[1])


def world_size() -> int:
    """Returns how many processes train together, over all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """Returns the mean of every rank's `value`, the same on all of them; a NaN of one is a NaN of all."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()
