import math

import pytest
import torch

from learner.losses.actor_critic import polyak_
from serl_launcher.networks.gaussian import TanhGaussian, log_tanh_slope
from serl_launcher.networks.mlp import EnsembleMlp
from serl_launcher.networks.observation import ObservationEncoder, random_shift
from tests.recorded_episodes import robot


def test_the_log_density_is_that_of_the_squashed_normal():
    """The density integrates to 1 over (-1, 1): the sum over a fine grid of actions."""
    torch.manual_seed(0)
    head = TanhGaussian(2, [8], 1)
    features = torch.randn(1, 2)
    mean, log_std = head.net(features).chunk(2, dim=-1)
    actions = torch.linspace(-0.99999, 0.99999, 20_001)[:, None]
    noise = (torch.atanh(actions) - mean) / log_std.exp()
    again, log_prob = head(features.expand(len(actions), -1), noise)
    torch.testing.assert_close(again, actions, atol=1e-4, rtol=0)
    integral = torch.trapezoid(log_prob.exp(), actions[:, 0]).item()
    assert integral == pytest.approx(1.0, abs=2e-2)


def test_the_slope_of_tanh_survives_large_inputs():
    assert log_tanh_slope(torch.tensor(0.5)).item() == pytest.approx(math.log(1 - math.tanh(0.5) ** 2), rel=1e-5)
    assert log_tanh_slope(torch.tensor(40.0)).item() == pytest.approx(2 * math.log(2) - 80, rel=1e-5)


def test_no_noise_is_the_mode():
    torch.manual_seed(0)
    head = TanhGaussian(3, [8], 2)
    features = torch.randn(4, 3)
    assert torch.equal(head(features, torch.zeros(4, 2))[0], head.mode(features))


def test_members_of_an_ensemble_are_independent():
    torch.manual_seed(0)
    ensemble = EnsembleMlp(3, 2, [8, 8], layer_norm=True)
    x = torch.randn(5, 2)
    before = ensemble(x)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter[1] += 0.5
    after = ensemble(x)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_the_encoder_reads_every_camera_and_the_state():
    torch.manual_seed(0)
    encoder = ObservationEncoder(robot(size=16), 8)
    images, state = torch.randint(0, 255, (2, 2, 16, 16, 3), dtype=torch.uint8), torch.randn(2, 3)
    features = encoder(images, state)
    assert features.shape == (2, encoder.width) == (2, 2 * 8 + 3)
    changed = images.clone()
    changed[:, 1] = 0
    difference = (encoder(changed, state) != features).any(dim=0)
    assert not difference[:8].any()
    assert difference[8:16].any()


def test_a_normalised_state_is_bounded_and_one_without_statistics_is_not():
    encoder = ObservationEncoder(robot(size=16), 8)
    images, state = torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8), torch.tensor([[0.0, 70.0, -70.0]])
    assert torch.equal(encoder(images, state)[:, -3:], state)
    encoder.state_norm.set_statistics(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 1.0, 100.0]))
    torch.testing.assert_close(encoder(images, state)[:, -3:], torch.tensor([[-2.0, 5.0, -0.7]]))


def test_an_encoder_that_follows_another_by_averaging_stays_finite():
    online, target = (ObservationEncoder(robot(size=16), 8) for _ in range(2))
    for normalizes in (False, True):
        if normalizes:
            for encoder in (online, target):
                encoder.state_norm.set_statistics(torch.zeros(3), torch.ones(3))
        tensors = [list(encoder.state_dict().values()) for encoder in (target, online)]
        polyak_(*tensors, rate=0.5)
        assert torch.equal(target.state_norm.bound, online.state_norm.bound)


def test_a_shift_moves_all_cameras_of_a_sample_alike():
    image = torch.arange(25, dtype=torch.uint8).reshape(1, 1, 5, 5, 1).expand(1, 2, 5, 5, 3)
    centre = torch.full((2, 1), 0.5)
    assert torch.equal(random_shift(image, centre, 2), image)
    moved = random_shift(image, torch.tensor([[0.99], [0.5]]), 2)
    assert torch.equal(moved[0, 0], moved[0, 1])
    assert torch.equal(moved[0, 0, :3], image[0, 0, 2:])
