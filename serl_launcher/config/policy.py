"""Settings of the policy: every size of π0, from the demo's to the 3.3 B one."""

from dataclasses import dataclass, field

from serl_launcher.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class VisionConfig:
    """SigLIP vision transformer."""

    image_size: int = 224
    """Side of the square image the tower sees, in pixels."""
    patch_size: int = 14
    width: int = 1152
    depth: int = 27
    mlp_dim: int = 4304
    num_heads: int = 16


@dataclass(kw_only=True, slots=True)
class GemmaConfig:
    """One Gemma stream (language model or action expert)."""

    width: int = 2048
    depth: int = 18
    mlp_dim: int = 16384
    num_heads: int = 8
    num_kv_heads: int = 1
    head_dim: int = 256


@dataclass(kw_only=True, slots=True)
class PolicyConfig:
    """A flow-matching vision-language-action policy (π0, arXiv:2410.24164)."""

    name: str = "pi0"
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: GemmaConfig = field(default_factory=GemmaConfig)
    expert: GemmaConfig = field(default_factory=lambda: GemmaConfig(width=1024, mlp_dim=4096))
    vocab_size: int = 257152
    max_token_len: int = 48
    """Prompt tokens, right-padded."""
    horizon: int = 50
    """Actions in one chunk, H."""
    max_state_dim: int = 32
    """State vectors are zero-padded to this width."""
    max_action_dim: int = 32
    """Action vectors are zero-padded to this width."""
    num_steps: int = 10
    """Euler steps of the sampler."""
    normalization: str = "zscore"
    """`zscore` (π0) or `quantile` (π0.5)."""
    delta_actions: bool = False
    """Whether the policy predicts joint actions relative to the state of the chunk's first tick (openpi's
    DeltaActions); dimensions whose name contains `gripper` stay absolute."""
    tokenizer_path: str | None = None
    """SentencePiece model; None takes the one beside the checkpoint."""

    def __post_init__(self) -> None:
        if self.normalization not in ("zscore", "quantile"):
            raise ConfigError(f"policy.normalization must be 'zscore' or 'quantile', got {self.normalization!r}.")
        if self.vision.image_size % self.vision.patch_size:
            raise ConfigError(
                f"policy.vision.image_size ({self.vision.image_size}) must be a multiple of patch_size "
                f"({self.vision.patch_size})."
            )
        if (self.language.depth, self.language.head_dim, self.language.num_kv_heads, self.language.num_heads) != (
            self.expert.depth,
            self.expert.head_dim,
            self.expert.num_kv_heads,
            self.expert.num_heads,
        ):
            raise ConfigError(
                "policy.language and policy.expert must agree in depth, head_dim, num_heads and num_kv_heads."
            )
