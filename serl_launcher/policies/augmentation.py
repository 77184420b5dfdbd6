"""Random changes of training images, one draw per sample."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MAX_SHIFT = 2
BRIGHTNESS = 0.15


def augment(images: Float[Tensor, "B C 3 h w"], generator: torch.Generator | None) -> Float[Tensor, "B C 3 h w"]:
    """Shifts every image by up to two pixels (DrQ, arXiv:2004.13649) and scales its brightness, in [-1, 1].

    All cameras of a sample get one brightness; every image has a shift of its own.
    """
    batch, cameras, _, height, width = images.shape
    flat = F.pad(images.flatten(0, 1), (MAX_SHIFT,) * 4, mode="replicate")
    shifts = torch.randint(0, 2 * MAX_SHIFT + 1, (batch * cameras, 2), generator=generator)
    rows = (shifts[:, :1] + torch.arange(height))[:, None, :, None]
    columns = (shifts[:, 1:] + torch.arange(width))[:, None, None, :]
    samples = torch.arange(batch * cameras)[:, None, None, None]
    channels = torch.arange(3)[None, :, None, None]
    shifted = flat[samples, channels, rows, columns].view(images.shape)
    light = 1 + BRIGHTNESS * (2 * torch.rand(batch, 1, 1, 1, 1, generator=generator) - 1)
    return ((shifted + 1) * light.to(images.device) - 1).clamp(-1, 1)
