"""Settings of the policy: every size of π0 and π0.5, from the demo's to the 3.3 B one."""

from dataclasses import dataclass, field

from serl_launcher.config.acting import ActingConfig
from serl_launcher.config.tuning import TuningConfig
from serl_launcher.errors import ConfigError

_CHOICES = {
    "name": ("pi0", "pi05"),
    "normalization": ("zscore", "quantile"),
    "state_in_prompt": ("unpadded", "padded", "none"),
    "image_resize": ("openpi", "lerobot"),
    "prompt_cleaning": ("openpi", "lerobot"),
    "loss_dims": ("all", "robot"),
}


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
    """A flow-matching vision-language-action policy: π0 (arXiv:2410.24164) or π0.5 (arXiv:2504.16054)."""

    name: str = "pi0"
    """`pi0`, or `pi05`: the state is a part of the prompt, and the flow time steers the expert's norms."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: GemmaConfig = field(default_factory=GemmaConfig)
    expert: GemmaConfig = field(default_factory=lambda: GemmaConfig(width=1024, mlp_dim=4096))
    vocab_size: int = 257152
    image_keys: list[str] = field(default_factory=list)
    """Cameras that the policy sees, in this order; those that the robot lacks are left out. Empty: all of the robot's,
    in its order."""
    image_resize: str = "openpi"
    """How images become square: `openpi` (antialiased, black border) or `lerobot` (0.4.4: neither, border at -3)."""
    max_token_len: int = 48
    """Prompt tokens, right-padded; 48 for π0, 200 for π0.5."""
    prompt_cleaning: str = "openpi"
    """What becomes of π0's prompt: `openpi` (no spaces at its ends, `_` and line breaks are spaces) or `lerobot`
    (0.4.4: it stays as it is). In π0.5's prompts both do what openpi does."""
    state_in_prompt: str = "unpadded"
    """How π0.5 is told the state: `unpadded` (openpi: one integer per state dimension of the robot), `padded` (LeRobot
    0.4.4: max_state_dim integers) or `none`. π0 has a state token instead."""
    horizon: int = 50
    """Actions in one chunk, H."""
    max_state_dim: int = 32
    """State vectors are zero-padded to this width."""
    max_action_dim: int = 32
    """Action vectors are zero-padded to this width."""
    loss_dims: str = "all"
    """What the flow-matching loss is a mean over: `all` of max_action_dim (openpi: what is padded learns to be 0), or
    only those of the `robot` (LeRobot 0.4.4). The sampled actions mean the same."""
    num_steps: int = 10
    """Euler steps of the sampler."""
    normalization: str = "zscore"
    """`zscore` (π0) or `quantile` (π0.5)."""
    delta_actions: bool = False
    """Whether the policy predicts joint actions relative to the state of the chunk's first tick (openpi's
    DeltaActions); dimensions whose name contains `gripper` stay absolute."""
    tokenizer_path: str | None = None
    """SentencePiece model; None takes the one beside the checkpoint."""
    acting: ActingConfig = field(default_factory=ActingConfig)
    """How the policy is run; a run that starts from a checkpoint takes its own, not the checkpoint's."""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    """Which weights train; a run that starts from a checkpoint takes its own, not the checkpoint's."""

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"policy.{key}: expected one of {', '.join(choices)}; got {getattr(self, key)!r}.")
        if self.tuning.max_delay >= self.horizon:
            raise ConfigError(
                f"policy.tuning.max_delay ({self.tuning.max_delay}) must be less than policy.horizon ({self.horizon}): "
                "an action must be left to learn."
            )
        if self.acting.chunking == "given" and not self.tuning.max_delay:
            raise ConfigError(
                "policy.acting.chunking=given needs a policy that was trained with policy.tuning.max_delay, which is 0."
                " Use guided or auto."
            )
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
