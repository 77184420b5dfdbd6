"""A small encoder of camera images and robot state, trained from scratch.

Legend: B batch, C cameras, S state width, D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from serl_launcher.specs import RobotSpec

_CHANNELS = 32
_NUM_LAYERS = 4
_MOST_DEVIATIONS = 5.0
"""How far from its mean a normalised state may seem: a gripper that never moved in the demonstrations must not, once it
does, drown everything else."""
_UNBOUNDED = torch.finfo(torch.float32).max
"""Not infinity, of which averages over time make NaN."""


class StateNorm(nn.Module):
    """Normalises a robot's state by fixed statistics."""

    mean: Tensor
    std: Tensor
    bound: Tensor

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(state_dim))
        self.register_buffer("std", torch.ones(state_dim))
        self.register_buffer("bound", torch.tensor(_UNBOUNDED))

    def set_statistics(self, mean: Float[Tensor, " S"], std: Float[Tensor, " S"]) -> None:
        """Fixes what the state is normalised by; before, it is taken as it is."""
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.bound.fill_(_MOST_DEVIATIONS)

    def forward(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """Returns deviations from the mean, bounded; the state is in robot units."""
        return ((state - self.mean) / self.std).clamp(-self.bound, self.bound)


class ObservationEncoder(nn.Module):
    """Strided convolutions per camera and the normalised state, side by side."""

    def __init__(self, spec: RobotSpec, image_features: int) -> None:
        """Reads the cameras of the robot in their order; each becomes `image_features` numbers."""
        super().__init__()
        self.cameras = nn.ModuleList(_camera(camera.height, camera.width, image_features) for camera in spec.cameras)
        self.state_norm = StateNorm(spec.state_dim)
        self.width = spec.state_dim + image_features * len(spec.cameras)

    def forward(self, images: UInt8[Tensor, "B C h w 3"], state: Float[Tensor, "B S"]) -> Float[Tensor, "B D"]:
        """Returns the features of one observation per row; images are uint8, the state in robot units."""
        seen = [
            camera(images[:, number].permute(0, 3, 1, 2).float() / 127.5 - 1.0)
            for number, camera in enumerate(self.cameras)
        ]
        return torch.cat([*seen, self.state_norm(state)], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Any: torch's own signature. Older checkpoints have other names, no bound, or no statistics at all.
        for name, unknown in self.state_norm.named_buffers():
            known = state_dict.pop(f"{prefix}state_{name}", _without_statistics(name, unknown))
            state_dict.setdefault(f"{prefix}state_norm.{name}", known)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _without_statistics(name: str, like: Tensor) -> Tensor:
    """Returns the buffer that takes the state as it is."""
    return torch.full_like(like, {"mean": 0.0, "std": 1.0, "bound": _UNBOUNDED}[name])


def _camera(height: int, width: int, features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(_NUM_LAYERS):
        layers += [nn.Conv2d(channels, _CHANNELS, 3, stride=2, padding=1), nn.ReLU()]
        channels, height, width = _CHANNELS, (height + 1) // 2, (width + 1) // 2
    flat = _CHANNELS * height * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, features), nn.LayerNorm(features), nn.Tanh())


def random_shift(
    images: UInt8[Tensor, "B C h w 3"], draws: Float[Tensor, "2 B"], pad: int
) -> UInt8[Tensor, "B C h w 3"]:
    """Shifts each sample by up to `pad` pixels, its border repeated (DrQ, arXiv:2004.13649); all cameras alike.

    Args:
        images: Of a batch.
        draws: Uniform in [0, 1), one pair per sample.
        pad: Pixels.
    """
    if not pad or not images.shape[1]:
        return images
    batch, cameras, height, width = images.shape[:4]
    flat = images.permute(0, 1, 4, 2, 3).reshape(batch * cameras, 3, height, width)
    padded = F.pad(flat.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    padded = padded.reshape(batch, cameras, 3, height + 2 * pad, width + 2 * pad)
    rows, columns = (draws * (2 * pad + 1)).long().to(images.device)
    y = (rows[:, None] + torch.arange(height, device=images.device))[:, None, None, :, None]
    x = (columns[:, None] + torch.arange(width, device=images.device))[:, None, None, None, :]
    sample = torch.arange(batch, device=images.device)[:, None, None, None, None]
    camera = torch.arange(cameras, device=images.device)[None, :, None, None, None]
    channel = torch.arange(3, device=images.device)[None, None, :, None, None]
    return padded[sample, camera, channel, y, x].permute(0, 1, 3, 4, 2)
