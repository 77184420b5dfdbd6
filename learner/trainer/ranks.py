"""What the ranks of one training job must do alike."""

from enum import IntEnum

import torch
from accelerate import Accelerator


class Verdict(IntEnum):
    """What every rank does next."""

    WAIT = 0
    UPDATE = 1
    STOP = 2
    FINISH = 3


class Ranks:
    """The processes that train together; rank 0 decides for all and is the only one that writes files."""

    def __init__(self, accelerator: Accelerator) -> None:
        """Uses the accelerator's process group, if it has one."""
        self._accelerator = accelerator

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self._accelerator.is_main_process

    @property
    def number(self) -> int:
        """This process's number, from 0."""
        return self._accelerator.process_index

    @property
    def count(self) -> int:
        """How many processes train together."""
        return self._accelerator.num_processes

    def agree(self, verdict: Verdict) -> Verdict:
        """Returns rank 0's verdict on every rank; a difference would leave one waiting in an all-reduce for ever."""
        if self.count == 1:
            return verdict
        shared = torch.tensor([int(verdict)], device=self._accelerator.device)
        torch.distributed.broadcast(shared, src=0)
        return Verdict(int(shared.item()))
