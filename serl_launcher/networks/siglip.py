"""SigLIP vision transformer (arXiv:2303.15343) with the parameter names of the published π0 checkpoints.

Legend: B images, N patches, D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from serl_launcher.config.policy import VisionConfig
from serl_launcher.networks.precision import uncast


class SiglipAttention(nn.Module):
    """Bidirectional self-attention over patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Returns the attended patches."""
        heads = (x_BND.shape[0], x_BND.shape[1], self.num_heads, -1)
        query, key, value = (
            projection(x_BND).view(heads).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(attended.transpose(1, 2).reshape(x_BND.shape))


class SiglipMlp(nn.Module):
    """Two layers with tanh-GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.width)

    def forward(self, x_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Returns the transformed patches."""
        return self.fc2(F.gelu(self.fc1(x_BND), approximate="tanh"))


class SiglipLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.self_attn = SiglipAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = SiglipMlp(config)

    def forward(self, x_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Returns the block's output."""
        x_BND = x_BND + self.self_attn(self.layer_norm1(x_BND))
        return x_BND + self.mlp(self.layer_norm2(x_BND))


class SiglipEmbeddings(nn.Module):
    """Patches through one convolution, plus a learned position each."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        num_patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(num_patches, config.width)
        nn.init.normal_(self.position_embedding.weight, std=config.width**-0.5)

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B N D"]:
        """Returns one token per patch, row by row."""
        patches = uncast(self.patch_embedding, images)
        return patches.flatten(2).transpose(1, 2) + self.position_embedding.weight


class SiglipEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipLayer(config) for _ in range(config.depth))

    def forward(self, x_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Returns the last block's output."""
        for layer in self.layers:
            x_BND = layer(x_BND)
        return x_BND


class SiglipVisionTransformer(nn.Module):
    """Image to tokens; no pooling, no class token."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B N D"]:
        """Returns one token per patch for images in [-1, 1].

        The embeddings may be kept in float32 while the blocks are in bfloat16.
        """
        return self.post_layernorm(self.encoder(self.embeddings(images).to(self.post_layernorm.weight.dtype)))


def initialize_(tower: SiglipVisionTransformer) -> None:
    """Sets weights as SigLIP's reference does: Xavier kernels, near-zero MLP biases."""
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if "mlp" in name:
                nn.init.normal_(module.bias, std=1e-6)
            else:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        nn.init.xavier_uniform_(
            tower.embeddings.patch_embedding.weight.view(tower.embeddings.patch_embedding.out_channels, -1)
        )
