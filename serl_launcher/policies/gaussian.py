"""A small policy of one action at a time: an encoder of images and state, and a tanh-Gaussian over actions.

On disk: gaussian.json  spec.json  model.safetensors
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from serl_launcher.errors import CheckpointError, PolicyError
from serl_launcher.networks.gaussian import TanhGaussian
from serl_launcher.networks.mlp import Mlp
from serl_launcher.networks.observation import ObservationEncoder
from serl_launcher.specs import RobotSpec

CONFIG_FILE = "gaussian.json"
_SPEC_FILE, _WEIGHTS_FILE = "spec.json", "model.safetensors"
NUM_GRIPPER_CHOICES = 3
"""Close, stay, open."""


class GaussianConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sizes of the policy."""

    hidden_dims: tuple[int, ...] = (256, 256)
    image_features: int = 64
    gripper: int | None = None
    """Action dimension that is chosen among close, stay and open by a critic of its own; None: all are continuous."""
    gripper_state: int | None = None
    """State dimension that says how far the gripper is open; `stay` commands what it says."""

    @property
    def horizon(self) -> int:
        """Actions in one chunk."""
        return 1


@dataclass(kw_only=True, slots=True)
class Prepared:
    """One batch of observations on the policy's device."""

    images: UInt8[Tensor, "B C h w 3"]
    state: Float[Tensor, "B S"]


class GaussianPolicy(nn.Module):
    """Maps observations to single actions in robot units, drawn or most likely."""

    def __init__(self, config: GaussianConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.norm_stats: dict[str, object] = {}
        self.encoder = ObservationEncoder(spec, config.image_features)
        self.actor = TanhGaussian(self.encoder.width, config.hidden_dims, len(self.continuous))
        has_gripper = config.gripper is not None
        self.gripper = Mlp(self.encoder.width, config.hidden_dims, NUM_GRIPPER_CHOICES) if has_gripper else None
        low, high = spec.action_bounds()
        self.register_buffer("_low", torch.from_numpy(low), persistent=False)
        self.register_buffer("_high", torch.from_numpy(high), persistent=False)
        self._low: Tensor
        self._high: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._low.device

    @property
    def continuous(self) -> list[int]:
        """Action dimensions of the Gaussian."""
        return [number for number in range(self.spec.action_dim) if number != self.config.gripper]

    def prepare(self, images: np.ndarray, state: np.ndarray, prompts: list[str]) -> Prepared:
        """Returns tensors of uint8 [B, C, height, width, 3] and float32 [B, S]; prompts are not understood."""
        del prompts
        return Prepared(
            images=torch.from_numpy(images).to(self.device), state=torch.from_numpy(state).to(self.device).float()
        )

    def scale(self, actions: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """Maps robot units to (-1, 1)."""
        return (2 * (actions - self._low) / (self._high - self._low) - 1).clamp(-1, 1)

    def unscale(self, actions: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """Maps (-1, 1) to robot units."""
        return self._low + (actions + 1) / 2 * (self._high - self._low)

    @torch.no_grad()
    def act(
        self, images: np.ndarray, state: np.ndarray, prompts: list[str], *,
        generator: torch.Generator | None = None, is_greedy: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Returns float32 [B, 1, A] in robot units; arguments as in `prepare`.

        Raises:
            PolicyError: The network's output is not finite.
        """
        inputs = self.prepare(images, state, prompts)
        features = self.encoder(inputs.images, inputs.state)
        if is_greedy:
            chosen = self.actor.mode(features)
        else:
            noise = torch.randn((len(features), len(self.continuous)), generator=generator).to(self.device)
            chosen = self.actor(features, noise)[0]
        actions = torch.zeros(len(features), self.spec.action_dim, device=self.device)
        actions[:, self.continuous] = chosen
        actions = self.unscale(actions)
        if self.gripper is not None:
            actions[:, self.config.gripper] = self._gripper_command(self.gripper(features), inputs.state)
        if not torch.isfinite(actions).all():
            raise PolicyError(
                "The policy's actions are not finite. The robot must hold; go back to an older checkpoint."
            )
        return actions[:, None].float().cpu().numpy()

    def _gripper_command(self, q: Float[Tensor, "B G"], state: Float[Tensor, "B S"]) -> Float[Tensor, " B"]:
        low, high = self._low[self.config.gripper], self._high[self.config.gripper]
        choice = q.argmax(dim=1)
        stay = (low + high) / 2 if self.config.gripper_state is None else state[:, self.config.gripper_state]
        return torch.where(choice == 0, low, torch.where(choice == 2, high, stay))


def save_gaussian(policy: GaussianPolicy, directory: Path) -> None:
    """Writes a policy into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    save_file(weights, directory / _WEIGHTS_FILE)
    save_gaussian_settings(policy.config, policy.spec, directory)


def save_gaussian_settings(config: GaussianConfig, spec: RobotSpec, directory: Path) -> None:
    """Writes everything but the weights into a directory that exists."""
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    (directory / _SPEC_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(spec)))


def load_gaussian(directory: Path, *, device: str | torch.device = "cpu") -> GaussianPolicy:
    """Returns the policy in a directory; raises CheckpointError where its weights are not those of its sizes."""
    try:
        config = msgspec.json.decode((directory / CONFIG_FILE).read_bytes(), type=GaussianConfig)
        spec = msgspec.json.decode((directory / _SPEC_FILE).read_bytes(), type=RobotSpec)
        policy = GaussianPolicy(config, spec)
        policy.load_state_dict(load_file(directory / _WEIGHTS_FILE))
    except (OSError, msgspec.MsgspecError, RuntimeError) as exc:
        raise CheckpointError(f"Expected a Gaussian policy at {directory}: {exc}") from exc
    return policy.to(device)
