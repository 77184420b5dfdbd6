import pytest
import torch
from accelerate import Accelerator
from torch import nn

from learner.trainer.engines import build_optimizers
from learner.trainer.optimization import Optimization
from serl_launcher.config.training import OptimizerConfig
from serl_launcher.errors import CheckpointError, ConfigError, PolicyError


def build(seed=0, **changes):
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    config = OptimizerConfig(**{"lr": 0.1, "num_warmup_steps": 0, "schedule": "constant", **changes})
    return module, Optimization(module, config, Accelerator(cpu=True))


def data(size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 3, generator=generator)


def loss_of(optimization):
    return lambda x: optimization.module(x).square().mean()


def test_accumulated_micro_batches_equal_one_batch():
    whole_module, whole = build()
    parts_module, parts = build()
    for _ in range(3):
        whole.update([data()], loss_of(whole))
        parts.update(list(data().split(2)), loss_of(parts))
    torch.testing.assert_close(parts_module.weight, whole_module.weight, rtol=1e-5, atol=1e-6)


def test_the_loss_reported_is_the_mean_over_micro_batches():
    module, optimization = build()
    expected = module(data()).square().mean().item()
    assert optimization.update(list(data().split(4)), loss_of(optimization))["loss"] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_changes_nothing():
    module, optimization = build()
    before = module.weight.detach().clone()
    with pytest.raises(PolicyError, match="finite loss at update 0"):
        optimization.update([data() * float("nan")], loss_of(optimization))
    assert torch.equal(module.weight, before)
    assert optimization.num_updates == 0


def test_the_average_follows_the_weights():
    module, optimization = build(ema=0.9)
    start = module.weight.detach().clone()
    optimization.update([data()], loss_of(optimization))
    decay = min(0.9, 2 / 11)
    expected = decay * start + (1 - decay) * module.weight.detach()
    with optimization.published_weights():
        torch.testing.assert_close(module.weight.detach(), expected)
    assert not torch.equal(module.weight, expected)


def test_without_an_average_the_weights_themselves_are_published():
    module, optimization = build()
    optimization.update([data()], loss_of(optimization))
    weights = module.weight.detach().clone()
    with optimization.published_weights():
        assert torch.equal(module.weight, weights)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_loaded_state_makes_the_same_next_update(ema):
    module, optimization = build(ema=ema)
    for _ in range(3):
        optimization.update([data()], loss_of(optimization))
    saved = {key: value.clone() for key, value in optimization.tensors().items()}
    with optimization.published_weights():
        published = {key: value.clone() for key, value in module.state_dict().items()}
    other_module, other = build(seed=5, ema=ema)
    other_module.load_state_dict(published)
    other.load(saved, 3)
    for each in (optimization, other):
        each.update([data()], loss_of(each))
    assert torch.equal(other_module.weight, module.weight)
    assert other.tensors().keys() == optimization.tensors().keys()


def test_the_state_of_another_network_is_refused():
    _, optimization = build()
    optimization.update([data()], loss_of(optimization))
    other = Optimization(nn.Linear(4, 2), OptimizerConfig(), Accelerator(cpu=True))
    with pytest.raises(CheckpointError, match="another policy"):
        other.load(optimization.tensors(), 1)


class Layered(nn.Module):
    """A network with matrices inside layers, as Muon takes them, and others around them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3)])
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.layers[0](x))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = Layered()

    def forward(self, x):
        return self.network(x)


def build_muon(seed):
    torch.manual_seed(seed)
    module = Wrapped()
    config = OptimizerConfig(name="muon", lr=0.01, num_warmup_steps=0, schedule="constant", ema=0.9)
    return module, Optimization(module, config, Accelerator(cpu=True))


def test_muon_takes_the_matrices_inside_layers_and_adamw_the_rest():
    module, _ = build_muon(0)
    adamw, muon = build_optimizers(module, OptimizerConfig(name="muon"))
    assert [p.shape for g in muon.param_groups for p in g["params"]] == [(3, 3)]
    assert sum(len(g["params"]) for g in adamw.param_groups) == 3


def test_muon_makes_the_same_next_update_after_a_load():
    module, optimization = build_muon(0)
    for _ in range(3):
        optimization.update([data()], loss_of(optimization))
    saved = {key: value.clone() for key, value in optimization.tensors().items()}
    other_module, other = build_muon(5)
    with optimization.published_weights():
        other_module.load_state_dict({key: value.clone() for key, value in module.state_dict().items()})
    other.load(saved, 3)
    for each in (optimization, other):
        each.update([data()], loss_of(each))
    for weights, others in zip(module.parameters(), other_module.parameters(), strict=True):
        assert torch.equal(weights, others)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ConfigError, match="muon"):
        OptimizerConfig(name="sgd")
