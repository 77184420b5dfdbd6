"""Conservative and calibrated critics. Legend: B batch, E critics, N actions drawn per observation."""

import torch
from jaxtyping import Float
from torch import Tensor


def cal_ql_penalty(
    q_data: Float[Tensor, "E B"],
    q_drawn: Float[Tensor, "E B N"],
    log_density: Float[Tensor, "B N"],
    value_of_behaviour: Float[Tensor, " B"] | None,
) -> Float[Tensor, ""]:
    """Returns how much higher the critics rate drawn actions than those in the data, summed over the critics.

    CQL(H) (arXiv:2006.04779) estimates log of the integral of exp Q by importance sampling; Cal-QL (arXiv:2303.05479)
    never pushes a drawn action's value below what the behaviour earned.

    Args:
        q_data: Of the executed actions.
        q_drawn: Of actions drawn from the policy or uniformly.
        log_density: Log of the density from which each of them was drawn.
        value_of_behaviour: Return that followed in the data, which bounds q_drawn from below; None: plain CQL.
    """
    if value_of_behaviour is not None:
        q_drawn = torch.maximum(q_drawn, value_of_behaviour[None, :, None])
    log_num = torch.log(torch.tensor(float(q_drawn.shape[-1]), device=q_drawn.device))
    softmax = torch.logsumexp(q_drawn - log_density, dim=-1) - log_num
    return (softmax - q_data).mean(dim=1).sum()
