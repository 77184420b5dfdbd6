"""Random changes of training images: one draw per sample, within their bounds, reproducible."""

import pytest
import torch

from serl_launcher.config.training import AlgoConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies.augmentation import BRIGHTNESS, CONTRAST, augment, draw_augmentation

SAME = torch.full((2, 3, 1, 1, 1, 1), 0.5)


def images(samples=3, cameras=2):
    return 0.6 * (torch.rand((1, 1, 3, 8, 8), generator=torch.Generator().manual_seed(0)) - 0.5).expand(
        samples, cameras, -1, -1, -1
    )


def test_samples_change_each_in_its_own_way_and_the_cameras_of_one_alike():
    changed = augment(images(), torch.Generator().manual_seed(1))
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.allclose(changed[0], changed[1], atol=1e-2)
    assert not torch.allclose(changed[1], changed[2], atol=1e-2)


def test_a_draw_in_the_middle_changes_nothing():
    torch.testing.assert_close(augment(images(), SAME), images())


def test_brightness_scales_light_and_contrast_the_distance_from_the_mean():
    brighter, sharper = SAME.clone(), SAME.clone()
    brighter[0], sharper[1] = 1.0, 1.0
    torch.testing.assert_close(augment(images(), brighter), (images() + 1) * (1 + BRIGHTNESS) - 1)
    mean = images().mean((2, 3, 4), keepdim=True)
    torch.testing.assert_close(augment(images(), sharper), mean + (1 + CONTRAST) * (images() - mean))


def test_images_stay_within_their_range():
    white = torch.ones(3, 1, 3, 4, 4)
    assert augment(white, torch.Generator().manual_seed(2)).abs().max() <= 1.0


def test_a_draw_made_before_gives_the_same_images():
    draws = draw_augmentation(3, torch.Generator().manual_seed(3))
    assert torch.equal(augment(images(), draws), augment(images(), torch.Generator().manual_seed(3)))
    alone = [augment(images()[row : row + 1], draws[:, row : row + 1]) for row in range(3)]
    assert torch.equal(torch.cat(alone), augment(images(), draws))


def openpi_draws(**changed):
    draws = torch.full((6, 1, 1, 1, 1, 1), 0.5)
    for number, name in enumerate(("x", "y", "angle", "brightness", "contrast", "saturation")):
        draws[number] = changed.get(name, 0.5)
    return draws


def ramp(height=20, width=40):
    """An image whose red grows to the right and whose green grows downwards."""
    y, x = torch.meshgrid(torch.linspace(-0.5, 0.5, height), torch.linspace(-0.5, 0.5, width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])[None, None]


def inside(images):
    return images[0, 0, :, 4:-4, 8:-8]


def test_openpis_crop_enlarges_and_moves():
    middle = inside(augment(ramp(), openpi_draws()))
    torch.testing.assert_close(middle, 0.95 * inside(ramp()), rtol=1e-3, atol=1e-3)
    shifted = inside(augment(ramp(), openpi_draws(x=1.0)))
    # Half of what is cut off: 2.5 % of the width, over which red grows by 1 (in 39 steps of 40 pixels).
    torch.testing.assert_close(shifted[0], middle[0] + 0.025 * 40 / 39, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shifted[1], middle[1], rtol=1e-3, atol=1e-3)


def test_openpis_rotation_turns_pixels_not_coordinates():
    turned = inside(augment(ramp(), openpi_draws(angle=1.0)))
    middle = inside(augment(ramp(), openpi_draws()))
    sin = torch.tensor(5.0).deg2rad().sin()
    # A pixel down moves the red that is seen by sin(5 degrees) of a pixel: red grows by 1/39 per pixel, at 95 %.
    down = (turned[0, 1:] - turned[0, :-1]).mean()
    torch.testing.assert_close(down, -0.95 * sin / 39, rtol=1e-2, atol=1e-4)
    assert (turned[0].mean() - middle[0].mean()).abs() < 1e-3


def test_wrist_cameras_keep_their_picture_under_openpis_augmentation():
    both = torch.cat([ramp(), ramp()], dim=1)
    changed = augment(both, openpi_draws(x=1.0, angle=1.0), cameras=("cam_high", "cam_left_wrist"))
    torch.testing.assert_close(changed[:, 1], both[:, 1])
    assert not torch.allclose(changed[:, 0], both[:, 0], atol=1e-2)


def test_openpis_colours_change_light_contrast_and_saturation():
    wrist = {"cameras": ("wrist",)}
    torch.testing.assert_close(augment(ramp(), openpi_draws(brightness=1.0), **wrist), (ramp() + 1) * 1.3 - 1)
    grey = torch.full((1, 1, 3, 4, 4), 0.25)
    torch.testing.assert_close(augment(grey, openpi_draws(saturation=1.0, contrast=0.0), **wrist), grey)
    red, green, _ = augment(ramp(), openpi_draws(saturation=0.0), **wrist)[0, 0, :, 0, -1]
    torch.testing.assert_close(red - green, torch.tensor(0.5), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("given", "meant"), [(True, "light"), ("False", "none"), ("openpi", "openpi")])
def test_what_was_a_switch_still_is_one(given, meant):
    assert AlgoConfig(image_augmentation=given).image_augmentation == meant
    with pytest.raises(ConfigError, match="image_augmentation"):
        AlgoConfig(image_augmentation="strong")
