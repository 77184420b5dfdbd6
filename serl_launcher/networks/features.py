"""What critics see of an observation: pooled tokens of the backbone pass that the actor needs anyway.

    encoding = encode(network, inputs)            # vision and language, once
    q = critic(encoding.features, actions)        # [B, F]
    chunks = sample_euler(encoding.flow(4), noise, num_steps)
    error = network.flow_error_from(encoding.prefix, encoding.state, actions, noise=noise, time=time)

Legend: B observations, P prefix tokens, C cameras, D width of the language model, F feature width, R rows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from serl_launcher.errors import ConfigError
from serl_launcher.networks.pi0 import ModelInputs, Pi0, Prefix
from serl_launcher.networks.sampling import NetworkFlow

POOLINGS = ("mean", "parts")


@dataclass(slots=True)
class Encoding:
    """One pass of the backbone: for the actor, and for critics."""

    network: Pi0
    prefix: Prefix
    state: Float[Tensor, "B S"]
    features: Float[Tensor, "B F"]
    """float32, with the gradients of the backbone; a critic that must not train it takes `features.detach()`."""

    def flow(self, num_draws: int = 1) -> NetworkFlow:
        """Returns the velocity field for `num_draws` chunks of every observation in a row."""
        return NetworkFlow(self.network, self.prefix.repeat(num_draws), self.state.repeat_interleave(num_draws, 0))


def encode(network: Pi0, inputs: ModelInputs, *, pooling: str = "mean", no_grad: bool = False) -> Encoding:
    """Runs the backbone once.

    Args:
        network: Of the policy.
        inputs: Prepared observations.
        pooling: `mean` over all valid tokens; `parts`: over each camera's and over the prompt's, side by side.
        no_grad: Whether the backbone's activations are not kept: for targets, and for frozen backbones.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not no_grad):
        prefix, tokens = network.encode_with_features(inputs)
        num_parts = inputs.images.shape[1]
        features = pooled(tokens, prefix.valid, num_text=inputs.tokens.shape[1], num_cameras=num_parts, pooling=pooling)
    return Encoding(network, prefix, inputs.state, features)


def feature_width(network: Pi0, *, num_cameras: int, pooling: str = "mean") -> int:
    """Returns F of `encode` for inputs with so many cameras."""
    return network.config.language.width * (num_cameras + 1 if pooling == "parts" else 1)


def pooled(
    tokens: Float[Tensor, "B P D"], valid: Bool[Tensor, "B P"], *, num_text: int, num_cameras: int, pooling: str
) -> Float[Tensor, "B F"]:
    """Returns means over valid tokens, float32; the mean over none of them is 0."""
    if pooling not in POOLINGS:
        raise ConfigError(f"Critic features are pooled by one of {list(POOLINGS)}, got {pooling!r}.")
    weights = valid.to(torch.float32)[..., None]
    if pooling == "mean":
        parts = [(tokens, weights)]
    else:
        sizes = [(tokens.shape[1] - num_text) // num_cameras] * num_cameras + [num_text]
        parts = list(zip(tokens.split(sizes, 1), weights.split(sizes, 1), strict=True))
    return torch.cat([(part.float() * w).sum(1) / w.sum(1).clamp(min=1.0) for part, w in parts], -1)
