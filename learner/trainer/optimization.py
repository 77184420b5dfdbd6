"""One module, its optimizers, its schedule and its averaged weights, on whatever hardware accelerate found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from learner.trainer.average import WeightAverage
from learner.trainer.engines import State, build_engine
from learner.trainer.guard import NotFinite
from learner.trainer.ranks import mean_over_ranks
from learner.trainer.schedule import learning_rate
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.errors import CheckpointError

MicroBatch = TypeVar("MicroBatch")


class Optimization:
    """Turns losses into updates of one module."""

    def __init__(self, module: nn.Module, config: OptimizerConfig, accelerator: Accelerator) -> None:
        """Places the module on the accelerator's device and makes its optimizers; `module` is not to be moved later."""
        self._config = config
        self._accelerator = accelerator
        self._engine = build_engine(module, config, accelerator)
        self._parameters = self._engine.parameters
        self._average = WeightAverage(self._parameters, config.ema)
        self.num_updates = 0
        self.schedule_start = 0
        """Update at which the schedule of the learning rate began."""

    @property
    def module(self) -> nn.Module:
        """What to call for a loss; wrapped for ranks and precision."""
        return self._engine.module

    def update(self, micro_batches: Sequence[MicroBatch], loss_of: Callable[[MicroBatch], Tensor]) -> dict[str, float]:
        """Makes one update from the mean of `loss_of` over equally large micro-batches (and over ranks).

        Raises:
            NotFinite: Loss or gradient is not finite, on any rank; on every rank the weights are as before the update.
        """
        rate = learning_rate(self.num_updates - self.schedule_start, self._config)
        self._engine.begin(rate)
        loss = torch.zeros((), device=self._accelerator.device)
        for number, micro_batch in enumerate(micro_batches):
            with self._engine.part(is_last=number == len(micro_batches) - 1):
                part = loss_of(micro_batch) / len(micro_batches)
                self._engine.backward(part)
            loss += part.detach()
        loss = mean_over_ranks(loss)
        grad_norm = self._engine.step()
        if grad_norm is None:
            raise NotFinite(
                f"Expected a finite loss at update {self.num_updates}, got {loss.item()}; the weights are unchanged. "
                "Lower algo.optimizer.lr, or look for damaged actions with `python -m tools.replay verify`."
            )
        self.num_updates += 1
        self._average.follow(self.num_updates)
        return {"loss": float(loss), "grad_norm": float(grad_norm), "lr": rate}

    def restart_schedule(self) -> None:
        """Begins the schedule of the learning rate anew with the next update."""
        self.schedule_start = self.num_updates

    @contextmanager
    def published_weights(self) -> Iterator[None]:
        """Within it, the module holds the weights to publish: their moving average, where there is one.

        Tensors change places, nothing of float32 is copied; do not train inside.
        """
        self._average.swap()
        try:
            yield
        finally:
            self._average.swap()

    def tensors(self) -> dict[str, Tensor]:
        """Returns what resumes this optimisation, besides the published weights; shares memory with it.

        With DeepSpeed the ranks gather their shares: call it on all of them.
        """
        tensors = {
            f"optimizer/{number}/{name}": value
            for number, entries in self._engine.state().items()
            for name, value in entries.items()
        }
        if self._average.is_on:
            tensors |= {f"weights/{number}": parameter.detach() for number, parameter in enumerate(self._parameters)}
            tensors |= {f"average/{number}": average for number, average in self._average.unrounded().items()}
        return tensors

    def load(self, tensors: dict[str, Tensor], num_updates: int, *, schedule_start: int = 0) -> None:
        """Continues where `tensors` was taken; the module must already hold the weights published then.

        Raises:
            CheckpointError: The tensors are of another module.
        """
        state: State = {}
        weights: dict[int, Tensor] = {}
        averages: dict[int, Tensor] = {}
        for key, value in tensors.items():
            kind, number, *name = key.split("/")
            if kind == "optimizer":
                state.setdefault(int(number), {})[name[0]] = value
            elif kind == "weights":
                weights[int(number)] = value
            elif kind == "average":
                averages[int(number)] = value
        self._check_fits(state)
        self._average.restart(averages)
        self._engine.load(state, weights)
        self.num_updates, self.schedule_start = num_updates, schedule_start

    def _check_fits(self, state: State) -> None:
        for number, entries in state.items():
            shape = next(tuple(entries[name].shape) for name in ("exp_avg", "momentum_buffer") if name in entries)
            expected = tuple(self._parameters[number].shape) if number < len(self._parameters) else None
            if shape != expected:
                raise CheckpointError(
                    f"Expected optimizer state of shape {expected} for parameter {number}, got {shape}. The checkpoint "
                    "belongs to another policy configuration."
                )
