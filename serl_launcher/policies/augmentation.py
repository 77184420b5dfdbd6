"""Random changes of training images, one draw per sample; all cameras of a sample change alike.

`light`: brightness and contrast by up to 15 %. Nothing is shifted or cropped: a shift of two pixels is a centimetre on
the table, and the policy acts on absolute positions (with shifts of two pixels, pointing at an object came out 30 %
less precise).

`openpi`: a crop of 95 %, turned by up to 5 degrees, except for wrist cameras; then brightness, contrast and saturation
by up to 30, 40 and 50 %.

Legend: K draws per sample, B samples, C cameras, h w pixels.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BRIGHTNESS = 0.15
CONTRAST = 0.15
OPENPI_CROP = 0.95
OPENPI_DEGREES = 5.0
OPENPI_BRIGHTNESS, OPENPI_CONTRAST, OPENPI_SATURATION = 0.3, 0.4, 0.5
_NUM_DRAWS = {"light": 2, "openpi": 6}
_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def draw_augmentation(
    count: int, generator: torch.Generator | None, kind: str = "light"
) -> Float[Tensor, "K B 1 1 1 1"]:
    """Returns the draws for `count` samples, uniform in [0, 1); `kind` is `light` or `openpi`."""
    device = None if generator is None else generator.device
    return torch.rand((_NUM_DRAWS[kind], count, 1, 1, 1, 1), generator=generator, device=device)


def augment(
    images: Float[Tensor, "B C 3 h w"], draws: torch.Generator | Tensor | None, *, cameras: Sequence[str] = ()
) -> Float[Tensor, "B C 3 h w"]:
    """Returns changed images, in [-1, 1] as they were.

    Args:
        images: The cameras of every sample.
        draws: What `draw_augmentation` returned, whose number says the kind; or the generator to draw light ones from.
        cameras: Their names; of those with `wrist` in it openpi changes the colours alone.
    """
    if not isinstance(draws, Tensor):
        draws = draw_augmentation(len(images), draws)
    draws = draws.to(images.device)
    if len(draws) == _NUM_DRAWS["light"]:
        return _contrasted(_lit(images, _scale(draws[0], BRIGHTNESS)), _scale(draws[1], CONTRAST)).clamp(-1, 1)
    moved = _cropped_and_turned(images, draws[:3].flatten(1))
    is_wrist = torch.tensor([number < len(cameras) and "wrist" in cameras[number] for number in range(images.shape[1])])
    images = torch.where(is_wrist.to(images.device)[None, :, None, None, None], images, moved)
    images = _lit(images, _scale(draws[3], OPENPI_BRIGHTNESS)).clamp(-1, 1)
    images = _contrasted(images, _scale(draws[4], OPENPI_CONTRAST)).clamp(-1, 1)
    grey = (images * images.new_tensor(_GREY)[:, None, None]).sum(2, keepdim=True)
    return (grey + (images - grey) * _scale(draws[5], OPENPI_SATURATION)).clamp(-1, 1)


def _scale(draw: Tensor, spread: float) -> Tensor:
    return 1 + spread * (2 * draw - 1)


def _lit(images: Tensor, scale: Tensor) -> Tensor:
    return (images + 1) * scale - 1


def _contrasted(images: Tensor, scale: Tensor) -> Tensor:
    mean = images.mean(dim=(2, 3, 4), keepdim=True)
    return (images - mean) * scale + mean


def _cropped_and_turned(images: Float[Tensor, "B C 3 h w"], draws: Float[Tensor, "3 B"]) -> Float[Tensor, "B C 3 h w"]:
    """Returns a random part of every image, enlarged to its size and turned; what lies beyond the edge is black."""
    batch, cameras, _, height, width = images.shape
    shift_x, shift_y = ((1 - OPENPI_CROP) * (2 * draw - 1) for draw in draws[:2])
    angle = math.radians(OPENPI_DEGREES) * (2 * draws[2] - 1)
    cos, sin = OPENPI_CROP * angle.cos(), OPENPI_CROP * angle.sin()
    # Coordinates go from -1 to 1 along both sides: a rotation of pixels takes the ratio of the sides.
    rows = [
        torch.stack([cos, -sin * height / width, shift_x], dim=1),
        torch.stack([sin * width / height, cos, shift_y], dim=1),
    ]
    matrices = torch.stack(rows, dim=1).repeat_interleave(cameras, 0)
    grid = F.affine_grid(matrices, [batch * cameras, 3, height, width], align_corners=False)
    moved = F.grid_sample(images.flatten(0, 1) + 1, grid, align_corners=False) - 1
    return moved.unflatten(0, (batch, cameras))
