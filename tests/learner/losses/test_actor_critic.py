import math

import pytest
import torch

from learner.losses.actor_critic import (
    critic_loss,
    pessimistic,
    policy_loss,
    polyak_,
    soft_value,
    td_target,
    temperature_loss,
)


def test_the_target_by_hand():
    q = torch.tensor([[1.0, 5.0], [2.0, 3.0], [0.0, 9.0]])
    assert pessimistic(q).tolist() == [0.0, 3.0]
    assert pessimistic(q, torch.tensor([0, 1])).tolist() == [1.0, 3.0]
    value = soft_value(torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 1.0]), torch.tensor(0.5))
    assert value.tolist() == [2.0, 2.5]
    target = td_target(torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.0]), value)
    assert target.tolist() == pytest.approx([1 + 0.9 * 2.0, 1.0])


def test_every_critic_is_pulled_to_the_target_as_if_alone():
    q = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([2.0, 2.0], requires_grad=True)
    loss = critic_loss(q, target)
    assert loss.item() == pytest.approx((1 + 0) / 2 + (4 + 4) / 2)
    loss.backward()
    assert q.grad.tolist() == [[-1.0, 0.0], [-2.0, -2.0]]
    assert target.grad is None


def test_the_policy_climbs_the_value_and_pays_for_certainty():
    q = torch.tensor([1.0, 3.0], requires_grad=True)
    log_prob = torch.tensor([0.5, -0.5], requires_grad=True)
    temperature = torch.tensor(0.1, requires_grad=True)
    loss = policy_loss(q, log_prob, temperature)
    assert loss.item() == pytest.approx(((0.05 - 1) + (-0.05 - 3)) / 2)
    loss.backward()
    assert q.grad.tolist() == [-0.5, -0.5]
    assert log_prob.grad.tolist() == pytest.approx([0.05, 0.05])
    assert temperature.grad is None


@pytest.mark.parametrize(("log_prob", "rises"), [(3.0, True), (1.0, False)])
def test_the_temperature_rises_while_the_entropy_is_below_its_target(log_prob, rises):
    log_temperature = torch.tensor(0.0, requires_grad=True)
    temperature_loss(log_temperature, torch.tensor([log_prob]), target_entropy=-2.0).backward()
    assert (log_temperature.grad.item() < 0) == rises


def test_polyak_moves_by_its_rate():
    target, online = [torch.zeros(2)], [torch.tensor([1.0, math.e])]
    polyak_(target, online, 0.25)
    assert target[0].tolist() == pytest.approx([0.25, math.e / 4])
