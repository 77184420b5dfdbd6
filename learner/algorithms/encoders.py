"""What the critics of a flow policy read observations with: the policy's backbone, or convolutions of their own.

Either way they know what was asked for: the same picture is worth something else under another prompt.

Legend: B batch, F features of the backbone, S state width, W width of word embeddings, D width of what comes out.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from learner.trainer.start import MIN_STATE_STD
from serl_launcher.config.sac import SacConfig
from serl_launcher.networks.features import feature_width
from serl_launcher.networks.observation import ObservationEncoder, StateNorm
from serl_launcher.policies import Pi0Policy


class PooledEncoder(nn.Module):
    """What a policy's backbone tells of an observation, its prompt included, beside the state; both normalised."""

    def __init__(self, num_features: int, state_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)
        self.state_norm = StateNorm(state_dim)
        self.width = num_features + state_dim

    def forward(self, seen: Float[Tensor, "B F"], state: Float[Tensor, "B S"]) -> Float[Tensor, "B D"]:
        """Returns the features of one observation per row; the state is in robot units."""
        return torch.cat([self.norm(seen), self.state_norm(state)], dim=1)


class PromptedEncoder(nn.Module):
    """Convolutions of its own and the normalised state; beside them, what the words of the prompt say together."""

    def __init__(self, encoder: ObservationEncoder, prompt_width: int, num_features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.prompt = nn.Sequential(
            nn.LayerNorm(prompt_width), nn.Linear(prompt_width, num_features), nn.LayerNorm(num_features), nn.Tanh()
        )
        self.width = encoder.width + num_features

    @property
    def state_norm(self) -> StateNorm:
        """Of the robot's state."""
        return self.encoder.state_norm

    def forward(
        self, seen: UInt8[Tensor, "B C h w 3"], state: Float[Tensor, "B S"], prompt: Float[Tensor, "B W"]
    ) -> Float[Tensor, "B D"]:
        """Returns the features of one observation per row; the state is in robot units."""
        return torch.cat([self.encoder(seen, state), self.prompt(prompt)], dim=1)


def critics_encoder(policy: Pi0Policy, config: SacConfig) -> PooledEncoder | PromptedEncoder:
    """Returns the encoder of `critic_features`; it normalises the state as the policy does."""
    spec, known = policy.spec, policy.norm_stats["state"]
    if config.critic_features == "own":
        width = policy.network.config.language.width
        encoder = PromptedEncoder(ObservationEncoder(spec, config.image_features), width, config.image_features)
    else:
        width = feature_width(policy.network, num_cameras=policy.num_cameras, pooling=config.critic_features)
        encoder = PooledEncoder(width, spec.state_dim)
    encoder.state_norm.set_statistics(torch.tensor(known.mean), torch.tensor(known.std).clamp(min=MIN_STATE_STD))
    return encoder


@torch.no_grad()
def mean_of_words(policy: Pi0Policy, prompts: list[str]) -> Float[Tensor, "B W"]:
    """Returns the mean of the policy's embeddings of each prompt's tokens, float32."""
    tokens, is_valid = (torch.from_numpy(each).to(policy.device) for each in policy.tokenizer(prompts, None))
    words = policy.network.paligemma_with_expert.paligemma.model.language_model.embed(tokens).float()
    weights = is_valid.float()[..., None]
    return (words * weights).sum(1) / weights.sum(1).clamp(min=1.0)
