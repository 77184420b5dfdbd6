"""Random changes of training images: one draw per sample, within their bounds, reproducible."""

import torch

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
