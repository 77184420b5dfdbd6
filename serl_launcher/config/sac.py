"""Settings of the actor-critic algorithms: `sac` (Gaussian policy) and `sac_pi0` (flow policy)."""

from dataclasses import dataclass, field

from serl_launcher.errors import ConfigError

_CHOICES = {
    "reward_from": ("recorded", "label"),
    "actor_value": ("min", "mean"),
    "sampler": ("euler", "sde", "injected"),
    "critic_features": ("own", "mean", "parts"),
}


@dataclass(kw_only=True, slots=True)
class GripperConfig:
    """A gripper that opens, stays or closes, learned by a critic of its own (HIL-SERL, arXiv:2410.21845)."""

    action: str = ""
    """Name of the action dimension; empty: none, every dimension is continuous."""
    state: str = ""
    """Name of the state dimension that says how far it is open, in [0, 1]."""
    toggle_penalty: float = -0.02
    """Reward of every change."""


@dataclass(kw_only=True, slots=True)
class SacConfig:
    """Maximum-entropy actor-critic, with the parts of RLPD, REDQ, HIL-SERL and Cal-QL that can be chosen."""

    discount: float = 0.99
    """Gamma per control step; a chunk of h steps is discounted by gamma ** h."""
    soft_target_update_rate: float = 0.005
    """Polyak rate of the target critics."""
    hidden_dims: list[int] = field(default_factory=lambda: [256, 256])
    """Widths of the critics' and of the Gaussian policy's layers."""
    image_features: int = 64
    """Numbers that each camera becomes."""
    image_shift: int = 4
    """Random shift of training images, in pixels (DrQ); 0: none."""
    critic_layer_norm: bool = True
    critic_ensemble_size: int = 2
    critic_subsample_size: int | None = None
    """Critics of whose minimum a target is made, drawn anew per update (REDQ); null: all."""
    cta_ratio: int = 1
    """Critic updates per actor update; an update of the trainer is one critic update."""
    actor_training_starts: int = 0
    """Updates in which the critics learn alone."""
    temperature_init: float = 1.0
    target_entropy: float | None = None
    """null: minus the number of continuous action dimensions."""
    backup_entropy: bool = True
    """Whether the target counts the entropy of what follows."""
    actor_value: str = "min"
    """What the actor climbs: the `min` or the `mean` of the critics."""
    reward_from: str = "recorded"
    """`recorded`: the rewards of the steps, where a person's label, also a late one, decides the last step. `label`: 1
    for the last step of an episode labelled success, else 0, and the label ends the episode, whoever gave it. A label
    that is corrected later counts at once."""
    reward_scale: float = 1.0
    reward_bias: float = 0.0
    """Rewards count as reward_scale * reward + reward_bias per step."""
    cql_weight: float = 0.0
    """Weight of the conservative penalty; 0: none."""
    cql_samples: int = 4
    """Actions per observation and kind (uniform, present policy, next policy) in the penalty."""
    cql_calibrated: bool = True
    """Whether the penalty stops at the return that followed in the data (Cal-QL)."""
    distill_weight: float = 0.0
    """`sac_pi0`: pull towards the frozen policy of the start."""
    sampler: str = "euler"
    """`sac_pi0`: how chunks are drawn while learning. `euler`: no log-probability, `distill_weight` holds the policy.
    `sde`, `injected`: along paths with a log-probability (networks/stochastic); a learned temperature holds the
    policy at `target_divergence` from the frozen one."""
    sampler_noise: float = 0.5
    """Noise level of such paths."""
    target_divergence: float = 0.01
    """Mean of log pi - log pi_reference per coordinate of a path, in nats."""
    critic_features: str = "own"
    """`sac_pi0`: what critics see of images. `own`: convolutions of their own. `mean`, `parts`: what the policy's
    backbone makes of them, pooled over everything or per camera; it learns nothing from the critics."""
    gripper: GripperConfig = field(default_factory=GripperConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"algo.sac.discount must lie in [0, 1], got {self.discount}.")
        if self.cql_weight > 0 and self.cql_calibrated and self.reward_bias != 0:
            raise ConfigError(
                f"algo.sac.cql_calibrated compares with returns that know no bias; reward_bias is {self.reward_bias}."
            )
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"algo.sac.{key} must be one of {', '.join(map(repr, choices))}, got {getattr(self, key)!r}."
                )
        if self.sampler != "euler" and self.distill_weight > 0:
            raise ConfigError(
                f"algo.sac.sampler={self.sampler} keeps target_divergence from the frozen policy; set distill_weight=0 "
                f"(got {self.distill_weight})."
            )
        if self.critic_ensemble_size < 1 or self.cta_ratio < 1:
            raise ConfigError(
                "algo.sac.critic_ensemble_size and cta_ratio must be 1 or more, got "
                f"{self.critic_ensemble_size} and {self.cta_ratio}."
            )
        if self.critic_subsample_size is not None and not 1 <= self.critic_subsample_size <= self.critic_ensemble_size:
            raise ConfigError(
                f"algo.sac.critic_subsample_size must lie in 1..{self.critic_ensemble_size} "
                f"(critic_ensemble_size), got {self.critic_subsample_size}."
            )
