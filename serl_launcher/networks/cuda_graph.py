"""One CUDA graph for a whole call of the sampler: a single launch instead of thousands.

A graph is recorded for the shapes of a call and replayed for later calls of the same shapes; other shapes get a graph
of their own. Only the inputs are copied in. The frozen network asks the host for nothing during a call on a GPU, which
is what makes the recording possible.

Legend: B observations, G draws, H chunk horizon, A action width.
"""

import logging
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from serl_launcher.errors import ConfigError
from serl_launcher.networks.frozen import FrozenPi0
from serl_launcher.networks.pi0 import ModelInputs

logger = logging.getLogger(__name__)

MAX_GRAPHS = 32
"""Recorded shapes that are kept; the least recently used goes first. Five batch sizes with the buckets of prompts."""
_WARM_UPS = 3
_device_locks: defaultdict[torch.device, threading.Lock] = defaultdict(threading.Lock)
"""A policy acts while the next one is recorded in another thread: no graph may be launched during that."""


@dataclass(slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: ModelInputs
    noise: Tensor
    actions: Tensor

    def replay(self, inputs: ModelInputs, noise: Tensor) -> Tensor:
        for field in fields(ModelInputs):
            getattr(self.inputs, field.name).copy_(getattr(inputs, field.name), non_blocking=True)
        self.noise.copy_(noise, non_blocking=True)
        self.graph.replay()
        return self.actions.clone()


class GraphedSampler:
    """Samples like `FrozenPi0.sample`, through recorded graphs; one thread at a time."""

    def __init__(self, network: FrozenPi0) -> None:
        """Raises ConfigError without a GPU."""
        if not torch.cuda.is_available():
            raise ConfigError("CUDA graphs need a GPU, torch finds none. Set policy.acting.cuda_graph=false.")
        self._network = network
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()

    def sample(
        self, inputs: ModelInputs, noise: Float[Tensor, "B G H A"], num_steps: int | None = None
    ) -> Float[Tensor, "B G H A"]:
        """Integrates the flow by Euler steps; the first call of every shape takes a few calls' time."""
        steps = self._network.config.num_steps if num_steps is None else num_steps
        tensors = [getattr(inputs, field.name) for field in fields(ModelInputs)]
        key = (steps, *((tuple(t.shape), t.dtype) for t in (*tensors, noise)))
        with torch.cuda.device(noise.device):
            if key not in self._recordings:
                self._recordings[key] = self._record(inputs, noise, steps)
                if len(self._recordings) > MAX_GRAPHS:
                    self._recordings.popitem(last=False)
            self._recordings.move_to_end(key)
            with _device_locks[noise.device]:
                return self._recordings[key].replay(inputs, noise)

    def _record(self, inputs: ModelInputs, noise: Tensor, steps: int) -> _Recording:
        own = ModelInputs(**{field.name: getattr(inputs, field.name).clone() for field in fields(ModelInputs)})
        own_noise = noise.clone()
        self._network.prepare(steps)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._network.sample(own, own_noise, steps)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads load and act meanwhile: only what this one does may spoil the recording.
        recording = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with _device_locks[noise.device], recording:
            actions = self._network.sample(own, own_noise, steps)
        logger.debug("Recorded a CUDA graph for %d observations, %d draws, %d steps.", *noise.shape[:2], steps)
        return _Recording(graph, own, own_noise, actions)
