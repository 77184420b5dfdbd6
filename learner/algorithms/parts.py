"""What an algorithm of several networks keeps in a checkpoint, beside its policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from learner.trainer.optimization import Optimization

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(kw_only=True, slots=True)
class Parts:
    """Random numbers, optimizers and networks; their names are those in the checkpoint."""

    generator: torch.Generator
    optimizations: Mapping[str, Optimization]
    modules: Mapping[str, nn.Module]

    def restart_schedules(self) -> None:
        """Begins the schedules of all learning rates anew."""
        for optimization in self.optimizations.values():
            optimization.restart_schedule()

    def state(self, num_updates: int) -> tuple[dict[str, Tensor], dict[str, str | int | float]]:
        """Returns tensors and scalars that continue this run."""
        tensors = {"rng/noise": self.generator.get_state()}
        for name, optimization in self.optimizations.items():
            tensors |= {f"{name}/{key}": value for key, value in optimization.tensors().items()}
        for name, module in self.modules.items():
            tensors |= {f"{name}/{key}": value.detach() for key, value in module.state_dict().items()}
        counts = {f"{name}_updates": each.num_updates for name, each in self.optimizations.items()}
        starts = {f"{name}_start": each.schedule_start for name, each in self.optimizations.items()}
        return tensors, {"num_updates": num_updates, **counts, **starts}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, str | int | float]) -> None:
        """Continues where `state` was taken; the policy already holds the saved weights."""
        self.generator.set_state(tensors["rng/noise"].cpu())
        for name, module in self.modules.items():
            module.load_state_dict(_below(tensors, name))
        for name, optimization in self.optimizations.items():
            start = int(scalars[f"{name}_start"])
            optimization.load(_below(tensors, name), int(scalars[f"{name}_updates"]), schedule_start=start)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}


def unwrapped(module: nn.Module, kind: type[_Module]) -> _Module:
    """Returns what accelerate wrapped."""
    return next(each for each in module.modules() if isinstance(each, kind))
