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


class ObservationEncoder(nn.Module):
    """Strided convolutions per camera and the normalised state, side by side."""

    state_mean: Tensor
    state_std: Tensor
    state_bound: Tensor

    def __init__(self, spec: RobotSpec, image_features: int) -> None:
        """Reads the cameras of the robot in their order; each becomes `image_features` numbers."""
        super().__init__()
        self.cameras = nn.ModuleList(_camera(camera.height, camera.width, image_features) for camera in spec.cameras)
        self.width = spec.state_dim + image_features * len(spec.cameras)
        self.register_buffer("state_mean", torch.zeros(spec.state_dim))
        self.register_buffer("state_std", torch.ones(spec.state_dim))
        self.register_buffer("state_bound", torch.tensor(_UNBOUNDED))

    def set_state_statistics(self, mean: Float[Tensor, " S"], std: Float[Tensor, " S"]) -> None:
        """Fixes what the state is normalised by; before, it is taken as it is."""
        self.state_mean.copy_(mean)
        self.state_std.copy_(std)
        self.state_bound.fill_(_MOST_DEVIATIONS)

    def forward(self, images: UInt8[Tensor, "B C h w 3"], state: Float[Tensor, "B S"]) -> Float[Tensor, "B D"]:
        """Returns the features of one observation per row; images are uint8, the state in robot units."""
        seen = [
            camera(images[:, number].permute(0, 3, 1, 2).float() / 127.5 - 1.0)
            for number, camera in enumerate(self.cameras)
        ]
        normalized = ((state - self.state_mean) / self.state_std).clamp(-self.state_bound, self.state_bound)
        return torch.cat([*seen, normalized], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Any: torch's own signature. Older checkpoints have no statistics, or no bound: the state was taken as it is.
        state_dict.setdefault(f"{prefix}state_mean", torch.zeros_like(self.state_mean))
        state_dict.setdefault(f"{prefix}state_std", torch.ones_like(self.state_std))
        state_dict.setdefault(f"{prefix}state_bound", torch.full_like(self.state_bound, _UNBOUNDED))
        super()._load_from_state_dict(state_dict, prefix, *rest)


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
