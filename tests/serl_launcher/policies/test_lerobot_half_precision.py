"""Our π0 and π0.5 against LeRobot 0.4.4's in bfloat16, layer by layer; small, and (slow) at the published sizes.

One model is in memory at a time, so that 24 GiB are enough; the weights travel through a file.
"""

import gc
import logging
import statistics

import pytest
import torch
from safetensors.torch import load_file, save_file

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.build import build_network
from serl_launcher.networks.pi0 import ModelInputs
from serl_launcher.networks.precision import parameter_dtype
from serl_launcher.policies.formats.names import from_published, to_published
from tests.serl_launcher.policies.test_lerobot_equality import CONFIGS, relative_error
from tools.bench_policy.lerobot_networks import arguments_of, build, lerobot_on_stock_transformers

logger = logging.getLogger(__name__)

SMALL = [CONFIGS["pi0"], CONFIGS["pi05"]]
# The prompt is shortened: attention over padding is compared at the small size.
PUBLISHED = [
    PolicyConfig(max_token_len=20, horizon=10),
    PolicyConfig(name="pi05", max_token_len=20, horizon=10, normalization="quantile"),
]
pytestmark = pytest.mark.timeout(900)

NUM_PADDED = 4
REEL = 4_194_319
LAYER_TOLERANCE = 0.05
"""Of a layer's output: bfloat16 rounds to 0.4 %, and the roundings of the layers before add up."""


def drawn_weights(config):
    """Returns weights in the types of the published list, without a float32 copy of the whole.

    They are read from a reel of normal numbers, over and over: its length is prime, so that no two tensors and no two
    rows are alike. Drawing three billion numbers would take longer than all the rest.
    """
    with torch.device("meta"):
        shapes = build_network(config).state_dict()
    reel = torch.randn(REEL, generator=torch.Generator().manual_seed(0))
    weights, at = {}, 0
    for name, tensor in shapes.items():
        # Norms and biases near zero, matrices at unit gain, embeddings like Gemma's after their scaling.
        fan_in = tensor[0].numel() if tensor.dim() > 1 else 400
        scaled = (reel * (0.02 if "embed" in name else fan_in**-0.5)).to(parameter_dtype(name, torch.bfloat16))
        flat = torch.empty(tensor.numel(), dtype=scaled.dtype)
        for begin in range(0, tensor.numel(), REEL):
            part = flat[begin : begin + REEL]
            part.copy_(scaled.roll(-at)[: len(part)])
        weights[name] = flat.view(tensor.shape)
        at = (at + tensor.numel()) % REEL
    return weights


def make_inputs(config):
    generator = torch.Generator().manual_seed(1)
    side, length = config.vision.image_size, config.max_token_len
    inputs = ModelInputs(
        images=2 * torch.rand((1, 1, 3, side, side), generator=generator) - 1,
        image_valid=torch.ones(1, 1, dtype=torch.bool),
        tokens=torch.randint(3, config.vocab_size, (1, length), generator=generator),
        token_valid=torch.arange(length)[None] < length - NUM_PADDED,
        state=torch.randn((1, config.max_state_dim), generator=generator),
    )
    return inputs, torch.randn((2, 1, config.horizon, config.max_action_dim), generator=generator)


def record_layers(network):
    """Returns a dictionary that fills with the last output of every feed-forward branch, by the branch's name."""
    outputs = {}
    for name, module in network.named_modules():
        if name.endswith(".mlp"):
            module.register_forward_hook(
                lambda _module, _arguments, output, name=name: outputs.__setitem__(name, output.detach().float())
            )
    return outputs


@torch.no_grad()
def our_outputs(config, path):
    with torch.device("meta"):
        network = build_network(config)
    network.load_state_dict(from_published(load_file(path)), assign=True)
    outputs = record_layers(network)
    inputs, (actions, noise) = make_inputs(config)
    loss = network.flow_error(inputs, actions, noise[:, None], torch.full((1, 1), 0.6))[:, 0]
    return outputs, loss, network.sample(inputs, noise[:, None], 2)[:, 0]


@torch.no_grad()
def lerobot_outputs(module, config, path):
    from transformers.modeling_utils import no_init_weights

    # Built in bfloat16, and nothing drawn: a float32 copy would need 14 GB, and minutes.
    torch.set_default_dtype(torch.bfloat16)
    try:
        with no_init_weights():
            network = build(module, config, dtype="bfloat16")
    finally:
        torch.set_default_dtype(torch.float32)
    tensors = load_file(path)
    network.load_state_dict(tensors, assign=True, strict=True)
    outputs = record_layers(network)
    inputs, (actions, noise) = make_inputs(config)
    arguments = arguments_of(config, inputs)
    loss = network(*arguments, actions, noise=noise, time=torch.full((1,), 0.6))
    return outputs, loss, network.sample_actions(*arguments, noise=noise, num_steps=2)


def error_of(name, ours, theirs):
    """Compares the tokens that somebody attends to; ours has no others on a CPU."""
    if ".language_model." in name:
        assert theirs.shape[1] - ours.shape[1] == NUM_PADDED
        theirs = theirs[:, :-NUM_PADDED]
    return relative_error(ours, theirs)


def compare(config, path):
    """Raises where layers, loss or actions differ; logs by how much they do (`--log-cli-level=INFO`)."""
    save_file(to_published(drawn_weights(config), both_names=True), path)
    ours = our_outputs(config, path)
    gc.collect()
    with lerobot_on_stock_transformers(config) as modules:
        theirs = lerobot_outputs(modules[config.name], config, path)
    layers, reference = ours[0], theirs[0]
    # Nobody reads the last prefix layer's output; we do not compute it.
    unread = f"paligemma_with_expert.paligemma.model.language_model.layers.{config.language.depth - 1}.mlp"
    assert reference.keys() - layers.keys() == {unread}
    errors = {name: error_of(name, output, reference[name]) for name, output in layers.items()}
    median = statistics.median(errors.values())
    largest = max(errors.values())
    logger.info("%s: %d layers, errors at most %.2g, median %.2g", config.name, len(errors), largest, median)
    assert largest < LAYER_TOLERANCE, sorted(errors.items(), key=lambda item: -item[1])[:5]
    first = [error for name, error in errors.items() if ".layers.0." in name]
    assert len(first) == 3
    for what, ours_of, theirs_of in zip(("loss", "actions"), ours[1:], theirs[1:], strict=True):
        assert ours_of.dtype == torch.float32
        error = relative_error(ours_of, theirs_of)
        logger.info("%s: error of the %s %.2g", config.name, what, error)
        assert error < LAYER_TOLERANCE


@pytest.mark.parametrize("config", SMALL, ids=["pi0", "pi05"])
def test_small_models_agree_layer_by_layer_in_half_precision(config, tmp_path):
    compare(config, tmp_path / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("config", PUBLISHED, ids=["pi0", "pi05"])
def test_published_sizes_agree_layer_by_layer_in_half_precision(config, tmp_path):
    path = tmp_path / "model.safetensors"
    try:
        compare(config, path)
    finally:
        path.unlink(missing_ok=True)
