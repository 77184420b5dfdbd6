import math

import pytest
import torch
from torch import nn

from learner.trainer.average import WeightAverage, decay_after


def parameters(dtype=torch.float32):
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2).to(dtype)), nn.Parameter(torch.randn(4).to(dtype))]


def follow(weights, average, num_updates):
    history = [[weight.detach().clone() for weight in weights]]
    for number in range(1, num_updates + 1):
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn_like(weight))
        history.append([weight.detach().clone() for weight in weights])
        average.follow(number)
    return history


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_equals_its_closed_form(decay):
    weights = parameters()
    average = WeightAverage(weights, decay)
    history = follow(weights, average, 60)
    decays = [decay_after(number, decay) for number in range(1, 61)]
    shares = [math.prod(decays)] + [(1 - d) * math.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    assert sum(shares) == pytest.approx(1.0)
    average.swap()
    for number, weight in enumerate(weights):
        expected = sum(share * step[number].double() for share, step in zip(shares, history, strict=True))
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_small_steps_of_bfloat16_weights_are_not_lost():
    weights = [nn.Parameter(torch.ones(1, dtype=torch.bfloat16))]
    average = WeightAverage(weights, 0.99)
    with torch.no_grad():
        weights[0].fill_(1.125)
    for number in range(2000, 2400):
        average.follow(number)
    average.swap()
    # 1.125 - 0.125 * 0.99 ** 400 = 1.12276, whose nearest bfloat16 is 1.125; in bfloat16 it would have stayed 1.
    assert weights[0].dtype == torch.bfloat16
    assert weights[0].item() == 1.125
    average.swap()
    assert average.unrounded()[0].item() == pytest.approx(1.125 - 0.125 * 0.99**400, abs=1e-5)


def test_bfloat16_weights_have_the_average_of_the_closed_form():
    weights = parameters(torch.bfloat16)
    average = WeightAverage(weights, 0.99)
    history = follow(weights, average, 60)
    decays = [decay_after(number, 0.99) for number in range(1, 61)]
    shares = [math.prod(decays)] + [(1 - d) * math.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    for number, exact in average.unrounded().items():
        expected = sum(share * step[number].double() for share, step in zip(shares, history, strict=True))
        torch.testing.assert_close(exact.double(), expected, rtol=1e-5, atol=1e-5)
    average.swap()
    assert all(weight.dtype == torch.bfloat16 for weight in weights)


def test_an_average_goes_on_from_one_that_was_saved():
    weights = parameters(torch.bfloat16)
    average = WeightAverage(weights, 0.99)
    follow(weights, average, 5)
    saved = {number: each.clone() for number, each in average.unrounded().items()}
    other = WeightAverage(weights, 0.99)
    other.restart(saved)
    for each in (average, other):
        each.follow(6)
    assert all(torch.equal(average.unrounded()[number], other.unrounded()[number]) for number in saved)


def test_the_decay_grows_to_the_one_configured():
    assert decay_after(1, 0.99) == pytest.approx(2 / 11)
    assert decay_after(100, 0.99) == pytest.approx(101 / 110)
    assert decay_after(10_000, 0.99) == 0.99


def test_weights_that_stay_are_their_own_average():
    weights = parameters()
    average = WeightAverage(weights, 0.9)
    before = [weight.detach().clone() for weight in weights]
    average.follow(1)
    average.swap()
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_swapping_twice_gives_the_weights_back():
    weights = parameters()
    average = WeightAverage(weights, 0.9)
    last = follow(weights, average, 3)[-1]
    average.swap()
    assert not torch.equal(weights[0], last[0])
    average.swap()
    assert all(torch.equal(weight, old) for weight, old in zip(weights, last, strict=True))


def test_a_decay_of_zero_averages_nothing():
    weights = parameters()
    average = WeightAverage(weights, 0.0)
    last = follow(weights, average, 2)[-1]
    average.swap()
    assert not average.is_on
    assert torch.equal(weights[0], last[0])
