"""Settings of how a policy is trained: which weights move, and what is kept of the forward pass."""

from dataclasses import dataclass, field

from serl_launcher.errors import ConfigError

LORA_TARGETS = ("attn", "ffn")


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank updates of frozen matrices (arXiv:2106.09685), with openpi's shapes and scales.

    A stream with a rank is frozen but for its factors; vision tower and action heads train on unless frozen, too.
    openpi's low-memory fine-tuning is `language_rank=16 expert_rank=32`.
    """

    language_rank: int = 0
    """Rank in the language model; 0: no factors there."""
    language_alpha: float = 16.0
    """Scale of attention updates is alpha / rank; that of feed-forward updates is 1 (openpi)."""
    expert_rank: int = 0
    """Rank in the action expert; 0: no factors there."""
    expert_alpha: float = 32.0
    """As `language_alpha`."""
    targets: list[str] = field(default_factory=lambda: list(LORA_TARGETS))
    """`attn` (q, k, v, o) and `ffn` (gate, up, down)."""
    rank_stabilized: bool = False
    """Whether the scale is alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)."""
    init: str = "zero"
    """`zero`: the second factor starts at zero, so that training starts from the policy as it was. `openpi`: both are
    drawn from N(0, 0.01)."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.targets) - set(LORA_TARGETS))
        if unknown or not self.targets:
            raise ConfigError(f"policy.tuning.lora.targets must be some of {list(LORA_TARGETS)}, got {self.targets}.")
        if self.init not in ("zero", "openpi"):
            raise ConfigError(f"policy.tuning.lora.init must be 'zero' or 'openpi', got {self.init!r}.")
        if min(self.language_rank, self.expert_rank) < 0:
            raise ConfigError(
                f"Ranks in policy.tuning.lora must not be negative, got {self.language_rank} and {self.expert_rank}."
            )

    @property
    def is_on(self) -> bool:
        """Whether any stream has factors."""
        return self.language_rank > 0 or self.expert_rank > 0


@dataclass(kw_only=True, slots=True)
class TuningConfig:
    """Which weights train and how much memory that takes. All of it is refused where the network lacks the part."""

    freeze_vision: bool = False
    """Whether the vision tower stays as it is."""
    expert_only: bool = False
    """Whether only the action expert and the action heads train: vision tower, projector and language model stay."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward pass instead of being kept: less memory, a third more work."""
    max_delay: int = 0
    """Training-time real-time chunking (arXiv:2512.05964): up to so many first actions of a chunk are given clean, as
    if the robot were executing them already, and do not count in the loss; 0: never."""
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        if self.expert_only and self.lora.language_rank:
            raise ConfigError(
                "policy.tuning.expert_only freezes the language model, policy.tuning.lora.language_rank would train "
                "it. Use one of them."
            )
        if self.max_delay < 0:
            raise ConfigError(f"policy.tuning.max_delay must not be negative, got {self.max_delay}.")
