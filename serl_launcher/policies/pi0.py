"""The π0 or π0.5 policy: robot units in, robot units out, around the network of `serl_launcher.networks`."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import ConfigError, PolicyError
from serl_launcher.networks.build import build_network
from serl_launcher.networks.chunking import ChunkUnderWay, delayed_times
from serl_launcher.networks.features import Encoding
from serl_launcher.networks.pi0 import ModelInputs, sample_flow_time
from serl_launcher.networks.tuning import retune_, tune_
from serl_launcher.policies.acting import (
    FrozenSampler,
    NetworkSampler,
    Observed,
    sample_after,
    stack_unfinished,
)
from serl_launcher.policies.augmentation import augment as augment_images
from serl_launcher.policies.images import camera_order, resize_with_pad
from serl_launcher.policies.normalization import Normalizer, NormStats, relative_dimensions
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Unfinished


class Pi0Policy(nn.Module):
    """π0 or π0.5 for one robot.

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
        self.network = build_network(config)
        tune_(self.network, config.tuning)
        self._sampler: NetworkSampler | FrozenSampler = NetworkSampler(self.network)
        self.norm_stats: dict[str, NormStats] = {}
        self._camera_order = camera_order(config, spec)
        names = spec.camera_names
        self._cameras = names if self._camera_order is None else [names[number] for number in self._camera_order]
        self._normalizers: dict[tuple[str, torch.device], Normalizer] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.action_in_proj.weight.device

    @property
    def num_cameras(self) -> int:
        """Cameras that the network sees."""
        return len(self._cameras)

    @property
    def delta_mask(self) -> np.ndarray | None:
        """Which action dimensions are relative to the state, bool [A]; None where none is."""
        if not self.config.delta_actions:
            return None
        return relative_dimensions(self.spec.action_names)

    def adopt_(self, config: PolicyConfig) -> None:
        """Trains and acts as `config` says from now on; what it has learned stays. Call before optimizers are made."""
        if config.tuning != self.config.tuning:
            retune_(self.network, config.tuning)
        self.config = dataclasses.replace(self.config, tuning=config.tuning, acting=config.acting)

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
        augment: torch.Generator | Tensor | None = None,
    ) -> ModelInputs:
        """Returns network inputs.

        Args:
            images: uint8 [B, C, height, width, 3] in the order of the robot's cameras.
            state: float32 [B, S] in robot units.
            prompts: B instructions.
            augment: Draws random image changes, or is what `draw_augmentation` drew; None leaves the images alone.
        """
        device = self.device
        seen = images if self._camera_order is None else images[:, self._camera_order]
        pixels = torch.from_numpy(seen).to(device).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        change = None if augment is None else partial(augment_images, draws=augment, cameras=self._cameras)
        pixels = resize_with_pad(pixels, self.config.vision.image_size, self.config.image_resize, change=change)
        normalized = self._normalizer("state", torch.device("cpu")).normalize(torch.from_numpy(state))
        padded = F.pad(normalized, (0, self.config.max_state_dim - normalized.shape[-1]))
        in_prompt = {"unpadded": normalized, "padded": padded, "none": None}[self.config.state_in_prompt]
        has_state_token = self.config.name == "pi0"
        tokens, token_valid = self.tokenizer(
            prompts, None if has_state_token or in_prompt is None else in_prompt.numpy()
        )
        return ModelInputs(
            images=pixels,
            image_valid=torch.ones(pixels.shape[:2], dtype=torch.bool, device=device),
            tokens=torch.from_numpy(tokens).to(device),
            token_valid=torch.from_numpy(token_valid).to(device),
            state=padded.to(device),
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
            actions = actions + torch.where(mask, state, torch.zeros_like(state))[..., None, :]
        return actions

    def flow_loss(
        self,
        inputs: ModelInputs,
        actions: Float[Tensor, "B H A"],
        is_pad: Bool[Tensor, "B H"],
        *,
        noise_samples: int = 1,
        generator: torch.Generator | None = None,
        draws: tuple[Float[Tensor, "B G H M"], Float[Tensor, "B G ..."]] | None = None,
        encoding: Encoding | None = None,
    ) -> Float[Tensor, "B G H L"]:
        """Returns the squared flow-matching error on the dimensions of `policy.loss_dims`; padded ticks count 0.

        Args:
            inputs: What `prepare` returned.
            actions: Chunks in robot units.
            is_pad: Ticks beyond the end of the episode.
            noise_samples: Draws of (noise, time) per observation; they share one pass of the prefix.
            generator: Draws noise and time.
            draws: What `draw_flow` drew; replaces `noise_samples` and `generator`.
            encoding: Of `inputs`, where the backbone has run already (for critics).
        """
        state = self._normalizer("state").unnormalize(inputs.state[:, : self.spec.state_dim])
        target = self.normalize_actions(actions, state)
        noise, time = self.draw_flow(len(target), noise_samples, generator) if draws is None else draws
        prefix = self.network.encode(inputs) if encoding is None else encoding.prefix
        error = self.network.flow_error_from(prefix, inputs.state, target, noise=noise, time=time)
        if self.config.loss_dims == "robot":
            error = error[..., : self.spec.action_dim]
        error = error * ~is_pad[:, None, :, None]
        return error if time.dim() == 2 else error * (time > 0)[..., None]

    def draw_flow(
        self, count: int, noise_samples: int, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "B G H M"], Float[Tensor, "B G ..."]]:
        """Returns noise and flow time for `count` observations, as `flow_loss` draws them.

        With `policy.tuning.max_delay` there is one time per action: 0 at those that are given.
        """
        shape = (count, noise_samples)
        width = (self.config.horizon, self.config.max_action_dim)
        noise = torch.randn((*shape, *width), generator=generator, device=self.device)
        time = sample_flow_time(shape, generator, self.device)
        max_delay = self.config.tuning.max_delay
        if max_delay:
            delay = torch.randint(0, max_delay + 1, shape, generator=generator, device=self.device)
            time = delayed_times(time, delay, self.config.horizon)
        return noise, time

    @torch.no_grad()
    def act(
        self, images: np.ndarray, state: np.ndarray, prompts: list[str], *, generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Returns action chunks in robot units, float32 [B, H, A]; arguments as in `prepare`.

        Raises:
            PolicyError: The network's output is not finite.
        """
        return self.act_many(images, state, prompts, num_samples=1, generator=generator)[:, 0]

    @torch.no_grad()
    def act_many(
        self,
        images: np.ndarray,
        state: np.ndarray,
        prompts: list[str],
        *,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> np.ndarray:
        """Returns `num_samples` chunks per observation, float32 [B, N, H, A]; they share one pass of the backbone."""
        inputs = self.prepare(images, state, prompts)
        predicted = self._sampler.sample(inputs, self._noise((len(images), num_samples), generator))
        return self._finite(predicted, state[:, None])

    @torch.no_grad()
    def act_on(self, observed: Observed, *, generator: torch.Generator | None = None) -> np.ndarray:
        """Returns float32 [B, H, A] for robots that may lack cameras or still execute a chunk (`policy.acting`)."""
        inputs = self.prepare(observed.images, observed.state, observed.prompts)
        if observed.image_valid is not None:
            seen = observed.image_valid if self._camera_order is None else observed.image_valid[:, self._camera_order]
            inputs = dataclasses.replace(inputs, image_valid=torch.from_numpy(seen).to(self.device))
        noise = self._noise((len(observed.prompts), 1), generator)
        if not any(observed.unfinished) or self.config.acting.chunking == "off":
            return self._finite(self._sampler.sample(inputs, noise), observed.state[:, None])[:, 0]
        under_way = self._under_way(observed.unfinished, observed.state)
        predicted = sample_after(
            self._sampler, inputs, noise[:, 0], under_way, config=self.config.acting,
            num_steps=self.config.num_steps, trained_delay=self.config.tuning.max_delay,
        )  # fmt: skip
        return self._finite(predicted, observed.state)

    def freeze_(self) -> Self:
        """Arranges the weights for acting, as `policy.acting` says; returns itself. They must not change afterwards."""
        self.requires_grad_(requires_grad=False)
        self._sampler = FrozenSampler(self.eval().network, self.config.acting)
        return self

    def _noise(self, shape: tuple[int, int], generator: torch.Generator | None) -> Float[Tensor, "B N H M"]:
        width = (self.config.horizon, self.config.max_action_dim)
        device = None if generator is None else generator.device
        return torch.randn((*shape, *width), generator=generator, device=device).to(self.device)

    def _under_way(self, unfinished: Sequence[Unfinished | None], state: np.ndarray) -> ChunkUnderWay:
        """Returns old chunks as the network sees actions: relative to the new state, normalised, padded."""
        actions, delays, lengths = stack_unfinished(
            unfinished, horizon=self.config.horizon, action_dim=self.spec.action_dim
        )
        device = self.device
        normalized = self.normalize_actions(torch.from_numpy(actions).to(device), torch.from_numpy(state).to(device))
        delay, length = (torch.from_numpy(counts).to(device) for counts in (delays, lengths))
        return ChunkUnderWay(actions=normalized, delay=delay, length=length)

    def _finite(self, predicted: Float[Tensor, "*B H M"], state: np.ndarray) -> np.ndarray:
        """Returns predicted chunks in robot units; raises PolicyError where they are not finite."""
        reference = torch.from_numpy(state).to(self.device)
        actions = self.unnormalize_actions(predicted, reference).float().cpu().numpy()
        if not np.isfinite(actions).all():
            raise PolicyError(
                "The policy's actions are not finite. The robot must hold; go back to an older checkpoint."
            )
        return actions

    def _normalizer(self, key: str, device: torch.device | None = None) -> Normalizer:
        where = (key, self.device if device is None else device)
        if where not in self._normalizers:
            if key not in self.norm_stats:
                raise PolicyError(
                    "The policy has no normalisation statistics. "
                    "Train it first, or start from a checkpoint with norm_stats.json."
                )
            self._normalizers[where] = Normalizer(self.norm_stats[key], self.config.normalization, where[1])
        return self._normalizers[where]
