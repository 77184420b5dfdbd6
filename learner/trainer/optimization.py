"""One module, its optimizers, its schedule and its averaged weights, on whatever hardware accelerate found."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from learner.trainer.schedule import learning_rate
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.errors import CheckpointError, PolicyError

logger = logging.getLogger(__name__)

MicroBatch = TypeVar("MicroBatch")

LR_RATIO = "lr_ratio"
"""Key of an optimizer's parameter group: its rate relative to the schedule's."""


class Optimization:
    """Turns losses into updates of one module."""

    def __init__(self, module: nn.Module, config: OptimizerConfig, accelerator: Accelerator) -> None:
        """Places the module on the accelerator's device and makes its optimizers; `module` is not to be moved later."""
        self._config = config
        self._accelerator = accelerator
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.module, *self._optimizers = accelerator.prepare(module, *build_optimizers(module, config))
        self._averages = [parameter.detach().clone() for parameter in self._parameters] if config.ema else []
        self.num_updates = 0

    def update(self, micro_batches: Sequence[MicroBatch], loss_of: Callable[[MicroBatch], Tensor]) -> dict[str, float]:
        """Makes one update from the mean of `loss_of` over equally large micro-batches.

        Raises:
            PolicyError: The loss is not finite; the weights are as before the update.
        """
        rate = learning_rate(self.num_updates, self._config)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get(LR_RATIO, 1.0)
            optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self._accelerator.device)
        for number, micro_batch in enumerate(micro_batches):
            is_last = number == len(micro_batches) - 1
            with nullcontext() if is_last else self._accelerator.no_sync(self.module):
                part = loss_of(micro_batch) / len(micro_batches)
                self._accelerator.backward(part)
            loss += part.detach()
        grad_norm = self._accelerator.clip_grad_norm_(self._parameters, self._config.max_grad_norm)
        if not torch.isfinite(loss):
            raise PolicyError(
                f"Expected a finite loss at update {self.num_updates}, got {loss.item()}; the weights are unchanged. "
                "Lower algo.optimizer.lr, or look for damaged actions with `python -m tools.replay verify`."
            )
        for optimizer in self._optimizers:
            optimizer.step()
        self.num_updates += 1
        self._follow_average()
        return {"loss": float(loss), "grad_norm": float(grad_norm) if grad_norm is not None else 0.0, "lr": rate}

    def _follow_average(self) -> None:
        if not self._averages:
            return
        # The average forgets its start quickly at first (as in TensorFlow's moving average).
        decay = min(self._config.ema, (1 + self.num_updates) / (10 + self.num_updates))
        weights = [parameter.detach() for parameter in self._parameters]
        for average, weight in zip(self._averages, weights, strict=True):
            average.lerp_(weight, 1.0 - decay)

    @contextmanager
    def published_weights(self) -> Iterator[None]:
        """Within it, the module holds the weights to publish: their moving average, where there is one.

        Tensors change places, nothing is copied; do not train inside.
        """
        self._swap_average()
        try:
            yield
        finally:
            self._swap_average()

    def _swap_average(self) -> None:
        for number, average in enumerate(self._averages):
            parameter = self._parameters[number]
            parameter.data, self._averages[number] = average, parameter.data

    def tensors(self) -> dict[str, Tensor]:
        """Returns what resumes this optimisation, besides the published weights; shares memory with it."""
        tensors = {}
        for number, parameter in enumerate(self._parameters):
            for optimizer in self._optimizers:
                for name, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer/{number}/{name}"] = torch.as_tensor(value)
            if self._averages:
                tensors[f"weights/{number}"] = parameter.detach()
        return tensors

    def load(self, tensors: dict[str, Tensor], num_updates: int) -> None:
        """Continues where `tensors` was taken; the module must already hold the weights published then.

        Raises:
            CheckpointError: The tensors are of another module.
        """
        state: dict[int, dict[str, Tensor]] = {}
        weights: dict[int, Tensor] = {}
        for key, value in tensors.items():
            kind, number, *name = key.split("/")
            if kind == "optimizer":
                state.setdefault(int(number), {})[name[0]] = value
            elif kind == "weights":
                weights[int(number)] = value
        self._check_fits(state)
        for optimizer in self._optimizers:
            self._load_optimizer(optimizer, state)
        self._averages = [parameter.detach().clone() for parameter in self._parameters] if self._config.ema else []
        with torch.no_grad():
            for number, value in weights.items():
                self._parameters[number].copy_(value)
        self.num_updates = num_updates

    def _load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
        """Hands an optimizer the entries of its own parameters, which it numbers by their order in its groups."""
        number_of = {parameter: number for number, parameter in enumerate(self._parameters)}
        own = [number_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
        entries = {place: state[number] for place, number in enumerate(own) if number in state}
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})

    def _check_fits(self, state: dict[int, dict[str, Tensor]]) -> None:
        for number, entries in state.items():
            shape = next(tuple(entries[name].shape) for name in ("exp_avg", "momentum_buffer") if name in entries)
            expected = tuple(self._parameters[number].shape) if number < len(self._parameters) else None
            if shape != expected:
                raise CheckpointError(
                    f"Expected optimizer state of shape {expected} for parameter {number}, got {shape}. The checkpoint "
                    "belongs to another policy configuration."
                )


def build_optimizers(module: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Returns AdamW over everything, or Muon over the matrices inside layers and AdamW over the rest.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalises the momentum of a matrix. Its update is
    rescaled to AdamW's usual size (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in named if config.name == "muon" and p.ndim == 2 and ".layers." in name]
    taken = {id(parameter) for parameter in matrices}
    rest = [parameter for _, parameter in named if id(parameter) not in taken]
    adamw = torch.optim.AdamW(
        rest, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, weight_decay=config.weight_decay
    )
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(
        matrices, lr=config.lr, weight_decay=config.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    muon.param_groups[0][LR_RATIO] = config.muon_lr_ratio
    return [adamw, muon]
