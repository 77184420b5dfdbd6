"""What turns gradients into new weights: accelerate's optimizers, or DeepSpeed's ZeRO.

Both keep their state under the same names and in full tensors, so that a checkpoint of one continues with the other,
and with another number of ranks.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from serl_launcher.config.training import OptimizerConfig
from serl_launcher.errors import ConfigError

LR_RATIO = "lr_ratio"
"""Key of an optimizer's parameter group: its rate relative to the schedule's."""

State = dict[int, dict[str, Tensor]]
"""Number of a parameter to its optimizer's tensors, such as `exp_avg`."""


class Engine(Protocol):
    """Optimizers of one module; `state` is a collective call: every rank makes it, or none."""

    module: nn.Module
    parameters: list[nn.Parameter]

    def begin(self, rate: float) -> None:
        """Starts an update at a learning rate."""
        ...

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Encloses forward and backward pass of one micro-batch."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a part of the loss."""
        ...

    def step(self) -> Tensor | None:
        """Returns the gradient's norm before clipping after changing the weights; None where it was not finite.

        In that case nothing changed.
        """
        ...

    def state(self) -> State:
        """Returns the optimizers' tensors, in full."""
        ...

    def load(self, state: State, weights: dict[int, Tensor]) -> None:
        """Takes over a state and, for the parameters named, weights; the module holds the others already."""
        ...


class AcceleratedEngine:
    """Plain optimizers: one process, or data-parallel ranks, with accelerate's mixed precision."""

    def __init__(self, module: nn.Module, config: OptimizerConfig, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._max_norm = config.max_grad_norm
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.module, *self._optimizers = accelerator.prepare(module, *build_optimizers(module, config))

    def begin(self, rate: float) -> None:
        for optimizer in self._optimizers:
            set_rate(optimizer, rate)
            optimizer.optimizer.zero_grad(set_to_none=True)

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext() if is_last else self._accelerator.no_sync(self.module)

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def step(self) -> Tensor | None:
        norm = self._accelerator.clip_grad_norm_(self.parameters, self._max_norm)
        norm = torch.zeros(()) if norm is None else torch.as_tensor(norm)
        is_finite = bool(torch.isfinite(norm))
        # With fp16 the optimizers must see an overflow: they skip the step and lower the scale of the loss. Otherwise
        # accelerate's wrapper adds nothing but a search for packages, which takes longer than a small network's step.
        has_scaler = self._accelerator.scaler is not None
        if is_finite or has_scaler:
            for optimizer in self._optimizers:
                (optimizer if has_scaler else optimizer.optimizer).step()
        return norm if is_finite else None

    def state(self) -> State:
        state: State = {}
        for number, parameter in enumerate(self.parameters):
            for optimizer in self._optimizers:
                for name, value in optimizer.state.get(parameter, {}).items():
                    state.setdefault(number, {})[name] = torch.as_tensor(value)
        return state

    def load(self, state: State, weights: dict[int, Tensor]) -> None:
        number_of = {parameter: number for number, parameter in enumerate(self.parameters)}
        for optimizer in self._optimizers:
            # An optimizer numbers its own parameters by their order in its groups.
            own = [number_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            entries = {place: state[number] for place, number in enumerate(own) if number in state}
            optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
        with torch.no_grad():
            for number, value in weights.items():
                self.parameters[number].copy_(value)


class ZeroEngine:
    """DeepSpeed ZeRO 0 to 2 (arXiv:1910.02054): every rank keeps a share of the optimizer's state and gradients."""

    _ADAM_STATE = ("exp_avg", "exp_avg_sq")

    def __init__(self, module: nn.Module, config: OptimizerConfig, accelerator: Accelerator) -> None:
        if config.name != "adamw":
            raise ConfigError(
                f"training.deepspeed_config needs algo.optimizer.name=adamw, got {config.name!r}. Leave "
                "deepspeed_config out to train with it."
            )
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        (optimizer,) = build_optimizers(module, config, fused=False)
        # An algorithm may have several networks, each with an engine of its own; accelerate thinks of one per process.
        plugin = accelerator.deepspeed_plugin
        assert plugin is not None, "`build_engine` found DeepSpeed."
        plugin.deepspeed_config["gradient_clipping"] = config.max_grad_norm
        accelerator.deepspeed_engine_wrapped = None
        self._engine, _ = accelerator.prepare(module, optimizer)
        self.module = self._engine
        self._allocate_state()

    @property
    def _adam(self) -> torch.optim.Optimizer:
        return self._engine.optimizer.optimizer

    def _allocate_state(self) -> None:
        """Gives Adam its state now: DeepSpeed waits for the first step, before which there is none to load into."""
        for group in self._adam.param_groups:
            for partition in group["params"]:
                zeros = {name: torch.zeros_like(partition) for name in self._ADAM_STATE}
                self._adam.state[partition] = {"step": torch.zeros(()), **zeros}
        self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def begin(self, rate: float) -> None:
        set_rate(self._engine.optimizer, rate)

    @contextmanager
    def part(self, *, is_last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(is_boundary=is_last)
        yield

    def backward(self, loss: Tensor) -> None:
        # The loss is a part already; DeepSpeed would divide it once more.
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> Tensor | None:
        self._engine.step()
        if self._engine.optimizer.overflow:
            return None
        return torch.as_tensor(self._engine.get_global_grad_norm())

    def state(self) -> State:
        from deepspeed.utils import safe_get_full_optimizer_state

        num_steps = next(iter(self._adam.state.values()))["step"].detach().clone().float()
        if num_steps == 0:
            return {}
        state: State = {}
        for number, parameter in enumerate(self.parameters):
            entries = {name: self._full(safe_get_full_optimizer_state(parameter, name)) for name in self._ADAM_STATE}
            # What never had a gradient is left out, as plain optimizers do.
            if any(value.any() for value in entries.values()):
                state[number] = {**entries, "step": num_steps.clone()}
        return state

    def load(self, state: State, weights: dict[int, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        with torch.no_grad():
            for number, parameter in enumerate(self.parameters):
                full = weights.get(number, parameter.detach()).to(parameter.device, torch.float32).clone()
                safe_set_full_fp32_param(parameter, full)
                parameter.copy_(full)
                for name in self._ADAM_STATE:
                    value = state[number][name] if number in state else torch.zeros_like(full)
                    safe_set_full_optimizer_state(parameter, value.to(parameter.device), name)
        steps = [float(entries["step"]) for entries in state.values()]
        self._set_num_steps(max(steps, default=0.0))

    @staticmethod
    def _full(value: Tensor | None) -> Tensor:
        assert value is not None, "DeepSpeed holds every parameter that we gave it."
        return value.clone()

    def _set_num_steps(self, num_steps: float) -> None:
        for entries in self._adam.state.values():
            entries["step"].fill_(num_steps)


def build_engine(module: nn.Module, config: OptimizerConfig, accelerator: Accelerator) -> Engine:
    """Returns the engine that the accelerator was made for; `module` is on its device from then on."""
    kind: Any = ZeroEngine if accelerator.distributed_type == DistributedType.DEEPSPEED else AcceleratedEngine
    return kind(module, config, accelerator)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group, by its own ratio."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_RATIO, 1.0)


def build_optimizers(module: nn.Module, config: OptimizerConfig, *, fused: bool = True) -> list[torch.optim.Optimizer]:
    """Returns AdamW over everything, or Muon over the matrices inside layers and AdamW over the rest.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalises the momentum of a matrix. Its update is
    rescaled to AdamW's usual size (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in named if config.name == "muon" and p.ndim == 2 and ".layers." in name]
    taken = {id(parameter) for parameter in matrices}
    rest = [parameter for _, parameter in named if id(parameter) not in taken]
    adamw = torch.optim.AdamW(
        rest,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(
        matrices, lr=config.lr, weight_decay=config.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    muon.param_groups[0][LR_RATIO] = config.muon_lr_ratio
    return [adamw, muon]
