import torch

from learner.losses.flow_matching import flow_matching_loss


def test_the_loss_is_the_mean_over_real_steps_with_a_constant_denominator():
    # One sample, one draw, two steps of two actions; the second step is padding: (1 + 4) / 4.
    squared_error = torch.tensor([[[[1.0, 4.0], [100.0, 100.0]]]])
    is_pad = torch.tensor([[False, True]])
    assert flow_matching_loss(squared_error, is_pad).item() == 1.25


def test_padding_has_no_gradient():
    squared_error = torch.ones(2, 3, 4, 5, requires_grad=True)
    is_pad = torch.zeros(2, 4, dtype=torch.bool)
    is_pad[1, 2:] = True
    flow_matching_loss(squared_error, is_pad).backward()
    assert squared_error.grad is not None
    assert torch.all(squared_error.grad[1, :, 2:] == 0)
    assert torch.all(squared_error.grad[0] == 1 / (2 * 3 * 4 * 5))


def test_the_mean_of_micro_batches_is_the_loss_of_the_batch():
    generator = torch.Generator().manual_seed(0)
    squared_error = torch.rand(8, 2, 5, 3, generator=generator)
    is_pad = torch.rand(8, 5, generator=generator) < 0.4
    parts = [flow_matching_loss(squared_error[i : i + 2], is_pad[i : i + 2]) for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), flow_matching_loss(squared_error, is_pad))
