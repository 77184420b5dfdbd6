import math

import pytest
import torch

from learner.losses.conservative import cal_ql_penalty
from learner.losses.discrete import choice_loss, double_dqn_target, toggle_penalty
from learner.losses.regularization import behaviour_regularized_loss, distillation_loss


def test_the_conservative_penalty_by_hand():
    q_data, q_drawn = torch.tensor([[1.0]]), torch.tensor([[[2.0, 0.0]]])
    log_density = torch.log(torch.tensor([[0.5, 0.25]]))
    expected = math.log((math.exp(2) / 0.5 + math.exp(0) / 0.25) / 2) - 1.0
    assert cal_ql_penalty(q_data, q_drawn, log_density, None).item() == pytest.approx(expected)


def test_the_penalty_estimates_the_integral_whatever_the_density():
    """Log of the integral of exp(a) over [-1, 1] is log(2 sinh 1)."""
    generator = torch.Generator().manual_seed(0)
    uniform = 2 * torch.rand(1, 200_000, generator=generator) - 1
    density = torch.full_like(uniform, math.log(0.5))
    found = cal_ql_penalty(torch.zeros(1, 1), uniform[None], density, None)
    assert found.item() == pytest.approx(math.log(2 * math.sinh(1)), abs=5e-3)


def test_a_calibrated_penalty_does_not_push_below_what_was_earned():
    q_drawn = torch.tensor([[[0.0, 5.0]]], requires_grad=True)
    cal_ql_penalty(torch.zeros(1, 1), q_drawn, torch.zeros(1, 2), torch.tensor([3.0])).backward()
    assert q_drawn.grad[0, 0, 0] == 0
    assert q_drawn.grad[0, 0, 1] > 0


def test_double_q_learning_chooses_with_one_critic_and_rates_with_the_other():
    target = double_dqn_target(
        torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([[0.0, 9.0, 1.0]]), torch.tensor([[7.0, 2.0, 8.0]])
    )
    assert target.tolist() == [2.0]


def test_only_the_chosen_value_learns():
    q = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    choice_loss(q, torch.tensor([1]), torch.tensor([5.0])).backward()
    assert q.grad.tolist() == [[0.0, -6.0, 0.0]]


def test_a_toggle_costs_only_where_it_changes_the_gripper():
    choice = torch.tensor([0, 0, 1, 2, 2])
    is_open = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    assert toggle_penalty(choice, is_open, -0.02).tolist() == pytest.approx([-0.02, 0, 0, 0, -0.02])


def test_distillation_ignores_padding_and_leaves_the_reference_alone():
    actions = torch.tensor([[[1.0], [9.0]]], requires_grad=True)
    reference = torch.zeros(1, 2, 1, requires_grad=True)
    loss = distillation_loss(actions, reference, torch.tensor([[False, True]]))
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    assert reference.grad is None
    assert actions.grad[0, 1, 0] == 0


def test_the_value_counts_once_against_the_distance():
    """A known implementation adds the value twice by aliasing; here loss = w * distance - Q."""
    assert behaviour_regularized_loss(torch.tensor([1.0, 3.0]), torch.tensor(0.5), 10.0).item() == pytest.approx(3.0)
