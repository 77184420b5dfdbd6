"""Q-learning over a few choices, such as open, stay and close of a gripper. Legend: B batch, G choices."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def double_dqn_target(
    reward: Float[Tensor, " B"],
    discount: Float[Tensor, " B"],
    next_q: Float[Tensor, "B G"],
    next_target_q: Float[Tensor, "B G"],
) -> Float[Tensor, " B"]:
    """Returns the target in which the online critic chooses and the target critic rates (arXiv:1509.06461)."""
    best = next_q.argmax(dim=1, keepdim=True)
    return reward + discount * next_target_q.gather(1, best).squeeze(1)


def choice_loss(q: Float[Tensor, "B G"], choice: Int[Tensor, " B"], target: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Returns the mean squared error of the value of what was chosen."""
    return F.mse_loss(q.gather(1, choice[:, None]).squeeze(1), target.detach())


def toggle_penalty(choice: Int[Tensor, " B"], is_open: Float[Tensor, " B"], penalty: float) -> Float[Tensor, " B"]:
    """Returns `penalty` (negative) where a choice changes the gripper: 0 closes, 1 stays, 2 opens (HIL-SERL).

    Args:
        choice: What was chosen.
        is_open: Opening before it, in [0, 1].
        penalty: Reward of one effective toggle, such as -0.02.
    """
    changes = ((choice == 2) & (is_open < 0.5)) | ((choice == 0) & (is_open >= 0.5))
    return torch.where(changes, torch.as_tensor(penalty, device=choice.device), 0.0)
