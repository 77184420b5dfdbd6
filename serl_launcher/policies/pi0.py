"""The π0 policy: robot units in, robot units out, around the network of `serl_launcher.networks.pi0`."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import ConfigError, PolicyError
from serl_launcher.networks.pi0 import ModelInputs, Pi0, sample_flow_time
from serl_launcher.policies.augmentation import augment as augment_images
from serl_launcher.policies.normalization import Normalizer, NormStats
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec


class Pi0Policy(nn.Module):
    """π0 for one robot.

    It owns the tokenizer, the normalisation statistics and, with `delta_actions`, the change between absolute joint
    targets (robot) and targets relative to the chunk's first state (network).
    """

    def __init__(self, config: PolicyConfig, spec: RobotSpec, tokenizer: PromptTokenizer) -> None:
        super().__init__()
        if spec.state_dim > config.max_state_dim or spec.action_dim > config.max_action_dim:
            raise ConfigError(
                f"Robot {spec.name!r} has {spec.state_dim} state and {spec.action_dim} action dimensions; "
                f"the policy takes {config.max_state_dim} and {config.max_action_dim}. Choose a larger policy."
            )
        if tokenizer.vocab_size > config.vocab_size:
            raise ConfigError(
                f"The tokenizer has {tokenizer.vocab_size} ids, the policy {config.vocab_size}; set policy.vocab_size."
            )
        self.config = config
        self.spec = spec
        self.tokenizer = tokenizer
        self.network = Pi0(config)
        self.norm_stats: dict[str, NormStats] = {}
        self._normalizers: dict[str, Normalizer] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.state_proj.weight.device

    @property
    def delta_mask(self) -> np.ndarray | None:
        """Which action dimensions are relative to the state, bool [A]; None where none is."""
        if not self.config.delta_actions:
            return None
        return np.array(["gripper" not in name for name in self.spec.action_names])

    def set_norm_stats(self, stats: dict[str, NormStats]) -> None:
        """Fixes the statistics of `state` and `actions`; raises ConfigError where their widths are not the robot's."""
        for key, width in (("state", self.spec.state_dim), ("actions", self.spec.action_dim)):
            if key not in stats or len(stats[key].mean) != width:
                got = len(stats[key].mean) if key in stats else "none"
                raise ConfigError(
                    f"Expected statistics of {key!r} of width {width}, got {got}. Compute them for this robot."
                )
        self.norm_stats = dict(stats)
        self._normalizers = {}

    def prepare(
        self,
        images: np.ndarray,
        state: np.ndarray,
        prompts: list[str],
        *,
        augment: torch.Generator | None = None,
    ) -> ModelInputs:
        """Returns network inputs.

        Args:
            images: uint8 [B, C, height, width, 3] in the order of the robot's cameras.
            state: float32 [B, S] in robot units.
            prompts: B instructions.
            augment: Draws random image changes; None leaves the images alone.
        """
        device = self.device
        pixels = torch.from_numpy(images).to(device).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        pixels = resize_with_pad(pixels, self.config.vision.image_size)
        if augment is not None:
            pixels = augment_images(pixels, augment)
        tokens, token_valid = self.tokenizer(prompts)
        normalized = self._normalizer("state").normalize(torch.from_numpy(state).to(device))
        return ModelInputs(
            images=pixels,
            image_valid=torch.ones(pixels.shape[:2], dtype=torch.bool, device=device),
            tokens=torch.from_numpy(tokens).to(device),
            token_valid=torch.from_numpy(token_valid).to(device),
            state=F.pad(normalized, (0, self.config.max_state_dim - normalized.shape[-1])),
        )

    def normalize_actions(self, actions: Float[Tensor, "B H A"], state: Float[Tensor, "B S"]) -> Float[Tensor, "B H M"]:
        """Returns the network's target for a chunk in robot units: relative where asked for, normalised, padded."""
        if self.delta_mask is not None:
            mask = torch.from_numpy(self.delta_mask).to(actions.device)
            actions = actions - torch.where(mask, state, torch.zeros_like(state))[:, None]
        normalized = self._normalizer("actions").normalize(actions)
        return F.pad(normalized, (0, self.config.max_action_dim - normalized.shape[-1]))

    def unnormalize_actions(
        self, predicted: Float[Tensor, "B H M"], state: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B H A"]:
        """Inverse of `normalize_actions`."""
        actions = self._normalizer("actions").unnormalize(predicted[..., : self.spec.action_dim])
        if self.delta_mask is not None:
            mask = torch.from_numpy(self.delta_mask).to(actions.device)
            actions = actions + torch.where(mask, state, torch.zeros_like(state))[:, None]
        return actions

    def flow_loss(
        self,
        inputs: ModelInputs,
        actions: Float[Tensor, "B H A"],
        is_pad: Bool[Tensor, "B H"],
        *,
        noise_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B G H A"]:
        """Returns the squared flow-matching error on the robot's own action dimensions; padded ticks count 0.

        Args:
            inputs: What `prepare` returned.
            actions: Chunks in robot units.
            is_pad: Ticks beyond the end of the episode.
            noise_samples: Draws of (noise, time) per observation; they share one pass of the prefix.
            generator: Draws noise and time.
        """
        state = self._normalizer("state").unnormalize(inputs.state[:, : self.spec.state_dim])
        target = self.normalize_actions(actions, state)
        shape = (len(target), noise_samples)
        noise = torch.randn((*shape, *target.shape[1:]), generator=generator, device=target.device)
        time = sample_flow_time(shape, generator, target.device)
        error = self.network.flow_error(inputs, target, noise, time)[..., : self.spec.action_dim]
        return error * ~is_pad[:, None, :, None]

    @torch.no_grad()
    def act(
        self, images: np.ndarray, state: np.ndarray, prompts: list[str], *, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Returns action chunks in robot units, float32 [B, H, A]; arguments as in `prepare`.

        Raises:
            PolicyError: The network's output is not finite.
        """
        inputs = self.prepare(images, state, prompts)
        shape = (len(images), 1, self.config.horizon, self.config.max_action_dim)
        noise = torch.randn(shape, generator=generator).to(self.device)
        predicted = self.network.sample(inputs, noise)[:, 0]
        actions = self.unnormalize_actions(predicted, torch.from_numpy(state).to(self.device)).float().cpu().numpy()
        if not np.isfinite(actions).all():
            raise PolicyError(
                "The policy's actions are not finite. The robot must hold; go back to an older checkpoint."
            )
        return actions

    def _normalizer(self, key: str) -> Normalizer:
        if key not in self._normalizers:
            if key not in self.norm_stats:
                raise PolicyError(
                    "The policy has no normalisation statistics. "
                    "Train it first, or start from a checkpoint with norm_stats.json."
                )
            self._normalizers[key] = Normalizer(self.norm_stats[key], self.config.normalization, self.device)
        return self._normalizers[key]


def resize_with_pad(images: Float[Tensor, "B C 3 h w"], size: int) -> Float[Tensor, "B C 3 s s"]:
    """Fits images in [-1, 1] into a square without distortion; the border is black (-1)."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    longer = max(height, width)
    new_height, new_width = height * size // longer, width * size // longer
    resized = F.interpolate(
        images.flatten(0, 1), (new_height, new_width), mode="bilinear", align_corners=False, antialias=True
    )
    top, left = (size - new_height) // 2, (size - new_width) // 2
    padding = (left, size - new_width - left, top, size - new_height - top)
    return F.pad(resized.clamp(-1, 1), padding, value=-1.0).unflatten(0, images.shape[:2])
