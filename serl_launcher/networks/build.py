"""The network that a configuration asks for."""

from collections.abc import Callable

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.pi0 import Pi0
from serl_launcher.networks.pi05 import Pi05

NETWORKS: dict[str, Callable[[PolicyConfig], Pi0]] = {"pi0": Pi0, "pi05": Pi05}


def build_network(config: PolicyConfig) -> Pi0:
    """Returns the network of `policy.name` with PyTorch's own initial weights; `initialize_` draws those of π0."""
    return NETWORKS[config.name](config)
