"""π0.5 (arXiv:2504.16054): π0 whose state stands in the prompt and whose flow time steers the norms of the expert.

Legend: B batch, H chunk horizon, A action width, S state width.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.networks.pi0 import Pi0, Suffix, time_embedding
from serl_launcher.networks.precision import uncast


class Pi05(Pi0):
    """π0 without a state token; the embedded time conditions the norms of the expert, and is no part of its tokens."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config, condition_width=config.expert.width)

    def _make_heads(self, width: int) -> None:
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)

    def embed_suffix(
        self, state: Float[Tensor, "B S"], x_t: Float[Tensor, "B H A"], time: Float[Tensor, " B"]
    ) -> Suffix:
        """Returns one token per action, and the condition; `state` is not used, for it stands in the prompt."""
        condition = self.time_condition(time_embedding(time, self.config.expert.width))
        return Suffix(uncast(self.action_in_proj, x_t), condition=condition, num_context=0)

    def time_condition(self, embedded: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Returns the condition of the expert's norms for an embedded flow time."""
        return F.silu(uncast(self.time_mlp_out, F.silu(uncast(self.time_mlp_in, embedded))))
