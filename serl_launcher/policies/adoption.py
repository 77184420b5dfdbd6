"""What a run changes of a policy from a checkpoint: what its command line asks for, where the weights allow it."""

from collections.abc import Collection
from dataclasses import replace
from operator import attrgetter

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies.normalization import NormStats

_FREE = (
    "image_keys", "image_resize", "max_token_len", "state_in_prompt", "horizon", "num_steps", "normalization",
    "delta_actions", "prompt_cleaning", "loss_dims",
)  # fmt: skip
"""Settings that fit any weights: positions are rotary, cameras share one tower, the sampler is integrated."""
_ELSEWHERE = ("acting", "tuning", "tokenizer_path")
"""Settings that a run has of its own, whatever the checkpoint says."""


def adopted(stored: PolicyConfig, wanted: PolicyConfig, explicit: Collection[str]) -> PolicyConfig:
    """Returns a checkpoint's settings with those that were asked for.

    Args:
        stored: Of the checkpoint.
        wanted: Of the run.
        explicit: Keys that the run's command line sets, as in `policy.horizon`; what files say is no request.

    Raises:
        ConfigError: The weights have another size than was asked for.
    """
    keys = sorted(key.removeprefix("policy.") for key in explicit if key.startswith("policy."))
    asked = [key for key in keys if key.partition(".")[0] not in _ELSEWHERE]
    fixed = [key for key in asked if key not in _FREE and attrgetter(key)(stored) != attrgetter(key)(wanted)]
    if fixed:
        differences = "; ".join(
            f"policy.{key} is {attrgetter(key)(stored)}, asked for is {attrgetter(key)(wanted)}" for key in fixed
        )
        raise ConfigError(
            f"The weights of checkpoint_path have sizes of their own: {differences}. Leave these settings out, or "
            "start from another checkpoint."
        )
    return replace(stored, **{key: getattr(wanted, key) for key in asked if key in _FREE})


def still_hold(stats: dict[str, NormStats], before: PolicyConfig, now: PolicyConfig) -> bool:
    """Whether a checkpoint's statistics serve other settings: they are of the same quantities, quantiles included."""
    has_quantiles = all(of.q01 is not None and of.q99 is not None for of in stats.values())
    is_same_kind = before.normalization == now.normalization or now.normalization != "quantile" or has_quantiles
    return is_same_kind and before.delta_actions == now.delta_actions
