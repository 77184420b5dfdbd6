"""How a policy's network is run to act: plain or frozen, one chunk or many, free or continuing the chunk under way.

Legend: B observations, N chunks per observation, H chunk horizon, M padded action width.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from serl_launcher.batch_sizes import padded_size
from serl_launcher.config.acting import ActingConfig
from serl_launcher.networks.chunking import ChunkUnderWay, ConditionedFlow, GuidedFlow
from serl_launcher.networks.cuda_graph import GraphedSampler
from serl_launcher.networks.frozen import FrozenPi0
from serl_launcher.networks.pi0 import ModelInputs, Pi0
from serl_launcher.networks.precision import cast_
from serl_launcher.networks.sampling import Flow, NetworkFlow, sample_euler
from serl_launcher.types import Unfinished

Rows = TypeVar("Rows", ModelInputs, ChunkUnderWay)
"""Tensors that all have B rows."""

PROMPT_BUCKET = 16
"""On a GPU prompts are cut to a multiple of so many tokens: few shapes, hence few graphs."""


class Observed(Protocol):
    """A batch of observations in robot units."""

    images: np.ndarray
    """uint8 [B, C, height, width, 3], cameras in the robot's order."""
    state: np.ndarray
    """float32 [B, S]."""
    prompts: list[str]
    image_valid: np.ndarray | None
    """bool [B, C], False where the robot lacks a camera; None: it has all."""
    unfinished: Sequence[Unfinished | None]
    """What each robot is still executing; empty: nothing is known of any."""


class NetworkSampler:
    """Runs the network as it is: slower, but right while its weights change."""

    def __init__(self, network: Pi0) -> None:
        self._network = network
        self.sample = network.sample
        self.has_few_shapes = False

    def flow(self, inputs: ModelInputs) -> Flow:
        """Returns the velocity field, with gradients with respect to the actions."""
        return NetworkFlow(self._network, self._network.encode(inputs), inputs.state)


class FrozenSampler:
    """Runs the frozen form, through CUDA graphs or compiled where that is configured and possible."""

    def __init__(self, network: Pi0, config: ActingConfig) -> None:
        """Freezes `network`, whose weights must not change any more; in half precision it is cast itself."""
        dtype = torch.bfloat16 if config.precision == "bfloat16" else None
        self._frozen = FrozenPi0(network, dtype=dtype)
        if dtype is not None:
            # The frozen form has been made of the originals, which now only take memory.
            cast_(network, dtype)
        self._frozen.prepare(network.config.num_steps)
        if config.compile:
            self._frozen.compile_()
        on_gpu = network.action_in_proj.weight.device.type == "cuda"
        self._sample: Callable[..., Tensor] = self._frozen.sample
        self._cut = cut_prompts if on_gpu else _as_they_are
        if on_gpu and config.cuda_graph:
            self._sample = GraphedSampler(self._frozen).sample
        self.has_few_shapes = config.compile or (on_gpu and config.cuda_graph)
        """Whether every other batch size costs a compilation or a recording, so that batches are padded."""

    def sample(self, inputs: ModelInputs, noise: Float[Tensor, "B N H M"]) -> Float[Tensor, "B N H M"]:
        """Returns normalised chunks."""
        inputs = self._cut(inputs)
        if not self.has_few_shapes:
            return self._sample(inputs, noise)
        return self._sample(_padded(inputs), _with_last_repeated(noise))[: len(noise)]

    def flow(self, inputs: ModelInputs) -> Flow:
        """Returns the velocity field, with gradients with respect to the actions."""
        return self._frozen.flow(self._frozen.encode(self._cut(inputs)))


def cut_prompts(inputs: ModelInputs) -> ModelInputs:
    """Returns inputs without the padding that every prompt has, in buckets of tokens. Waits for the device once."""
    longest = int(inputs.token_valid.sum(1).max())
    length = min(-(-longest // PROMPT_BUCKET) * PROMPT_BUCKET, inputs.tokens.shape[1])
    return replace(inputs, tokens=inputs.tokens[:, :length], token_valid=inputs.token_valid[:, :length])


def sample_after(
    sampler: NetworkSampler | FrozenSampler,
    inputs: ModelInputs,
    noise: Float[Tensor, "B H M"],
    under_way: ChunkUnderWay,
    *,
    config: ActingConfig,
    num_steps: int,
    trained_delay: int,
) -> Float[Tensor, "B H M"]:
    """Returns normalised chunks that continue the ones under way, as `config.chunking` says."""
    num_rows = len(noise)
    if sampler.has_few_shapes:
        inputs, under_way, noise = _padded(inputs), _padded(under_way), _with_last_repeated(noise)
    flow = sampler.flow(inputs)
    is_trained = trained_delay > 0 and int(under_way.delay.max()) <= trained_delay
    if config.chunking == "given" or (config.chunking == "auto" and is_trained):
        given = ConditionedFlow(flow, under_way)
        return sample_euler(given, given.begin(noise), num_steps)[:num_rows]
    # A step of 1/n moves by guidance/n of the error: more than n overshoots, and the chunk may end far from both.
    strength = min(config.max_guidance, float(num_steps))
    guided = GuidedFlow(flow, under_way, schedule=config.chunking_schedule, max_guidance=strength)
    return sample_euler(guided, noise, num_steps)[:num_rows]


def _padded(rows: Rows) -> Rows:
    """Returns as many rows as a padded batch has; the last is repeated, for rows do not see each other."""
    return replace(rows, **{field.name: _with_last_repeated(getattr(rows, field.name)) for field in fields(rows)})


def _with_last_repeated(tensor: Tensor) -> Tensor:
    missing = padded_size(len(tensor)) - len(tensor)
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor


def stack_unfinished(
    unfinished: Sequence[Unfinished | None], *, horizon: int, action_dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns actions, float32 [B, H, A] (rows repeat their last one), and delays and lengths, int64 [B]."""
    actions = np.zeros((len(unfinished), horizon, action_dim), np.float32)
    lengths = np.zeros(len(unfinished), np.int64)
    delays = np.zeros(len(unfinished), np.int64)
    for row, each in enumerate(unfinished):
        if each is None or not len(each.actions):
            continue
        lengths[row] = min(len(each.actions), horizon)
        delays[row] = min(each.delay_ticks, lengths[row])
        actions[row, : lengths[row]] = each.actions[:horizon]
        actions[row, lengths[row] :] = each.actions[lengths[row] - 1]
    return actions, delays, lengths


def _as_they_are(inputs: ModelInputs) -> ModelInputs:
    return inputs
