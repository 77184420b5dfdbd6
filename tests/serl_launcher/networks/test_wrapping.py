"""Every layer has a forward of its own, so that what wraps layers can wrap them: sharding, compiling."""

import os

import pytest
import torch
from torch import distributed, multiprocessing, nn

from serl_launcher.config.tuning import TuningConfig
from serl_launcher.networks.gemma import GemmaLayer
from serl_launcher.networks.siglip import SiglipLayer
from serl_launcher.networks.tuning import tune_
from tests.serl_launcher.networks.small import small_inputs, small_network

NUM_RANKS, ROWS = 2, 4


class Loss(nn.Module):
    """What a trainer wraps: the loss as a forward pass."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs, actions, noise, time):
        return self.network.flow_error(inputs, actions, noise, time).mean()


def layers_of(network):
    """Two of the vision tower, three of the language model, three of the expert."""
    layers = [module for module in network.modules() if isinstance(module, (GemmaLayer, SiglipLayer))]
    assert len(layers) == 2 + 3 + 3
    return layers


def arguments(rows):
    """Returns the rows' part of one batch."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((ROWS, 6, 4), (ROWS, 1, 6, 4))
    actions, noise = (torch.randn(shape, generator=generator)[rows] for shape in shapes)
    inputs = small_inputs(batch=ROWS)
    part = type(inputs)(**{name: getattr(inputs, name)[rows] for name in type(inputs).__slots__})
    return part, actions, noise, torch.rand((ROWS, 1), generator=generator)[rows]


def make_loss(name, recomputes):
    network = small_network(name)
    tune_(network, TuningConfig(gradient_checkpointing=recomputes))
    return Loss(network)


def trained_alone(name, recomputes):
    loss = make_loss(name, recomputes)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss(*arguments(slice(None))).backward()
        optimizer.step()
    return loss.network.state_dict()


def train_sharded(rank, name, recomputes, folder):
    """Runs in a process of its own; rank 0 leaves what was learned in `folder`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_RANKS)
    loss = make_loss(name, recomputes)
    mesh = init_device_mesh("cpu", (NUM_RANKS,))
    for layer in layers_of(loss.network):
        fully_shard(layer, mesh=mesh)
    fully_shard(loss, mesh=mesh)
    held = sum(parameter.to_local().numel() for parameter in loss.parameters())
    assert held <= 0.55 * sum(parameter.numel() for parameter in loss.parameters())
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss(*arguments(slice(rank, None, NUM_RANKS))).backward()
        optimizer.step()
    learned = {key: tensor.full_tensor() for key, tensor in loss.network.state_dict().items()}
    if rank == 0:
        torch.save(learned, f"{folder}/learned.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["pi0", "pi05"])
@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "recomputed"])
def test_two_ranks_that_share_every_layer_learn_what_one_learns(name, recomputes, tmp_path):
    expected = trained_alone(name, recomputes)
    multiprocessing.spawn(train_sharded, (name, recomputes, os.fspath(tmp_path)), nprocs=NUM_RANKS)
    learned = torch.load(tmp_path / "learned.pt", weights_only=True)
    assert learned.keys() == expected.keys()
    for key, tensor in learned.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # The compiler warns of its own doings.
@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_compiled_layers_give_the_same_loss_and_gradients(name):
    results = []
    for compiles in (False, True):
        loss = make_loss(name, recomputes=False)
        if compiles:
            for layer in layers_of(loss.network):
                layer.compile(backend="aot_eager")
        value = loss(*arguments(slice(None)))
        value.backward()
        gradients = {key: p.grad for key, p in loss.named_parameters() if p.grad is not None}
        results.append((value.detach(), gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
