"""Settings that contradict the algorithm: what it would ignore in silence is refused at the start.

Keys that tasks and groups set for several algorithms at once (batch sizes, noise_samples, the policy's optimizer) are
not listed: they are left aside by those that have no use for them.
"""

import logging
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from serl_launcher.config import RunConfig
from serl_launcher.config.training import AlgoConfig, OptimizerConfig
from serl_launcher.errors import ConfigError

logger = logging.getLogger(__name__)

_CYCLE = ("rl_steps", "sft_steps")
_ACCEPTANCE = ("threshold_schedule",)
_FLOW = ("sac.distill_weight", "sac.sampler", "sac.sampler_noise", "sac.target_divergence", "sac.critic_features")
_PATHS = ("sac.sampler_noise", "sac.target_divergence")

IGNORED: dict[str, tuple[str, ...]] = {
    "sft_pi0": ("sac", *_CYCLE, *_ACCEPTANCE),
    "reject_sampling_pi0": ("sac", *_CYCLE),
    "sac": (*_FLOW, *_CYCLE, *_ACCEPTANCE),
    "sac_pi0": ("sac.gripper", "sac.target_entropy", "sac.image_shift", *_ACCEPTANCE),
    "reward_classifier": ("sac", *_CYCLE, *_ACCEPTANCE),
}
"""Algorithm to the keys below `algo`, or groups of them, that must keep their default: it has no use for them."""

_CRITICS = ("sac", "sac_pi0")
_CLASSIFIER_OPTIMIZER = ("name", "muon_lr_ratio", "ema")


def check_settings(config: RunConfig) -> None:
    """Raises ConfigError where a setting contradicts the algorithm or another setting of the trainer.

    Known algorithms alone; `build` refuses the others.
    """
    algo, name = config.algo, config.algo.name
    for key, value, default in _changed(algo, AlgoConfig()):
        if _is_below(key, IGNORED.get(name, ())):
            readers = [other for other, unread in IGNORED.items() if not _is_below(key, unread)]
            raise ConfigError(
                f"algo={name} does not use algo.{key}={value!r}: leave it at {default!r}, or choose an algorithm that "
                f"does, {' or '.join(readers)}."
            )
        if key in _PATHS and algo.sac.sampler == "euler":
            raise ConfigError(
                f"algo.{key}={value!r} is of paths that are drawn at random: set algo.sac.sampler to sde or injected "
                f"(got 'euler'), or leave it at {default!r}."
            )
    _check_asked(config)
    _check_optimizers(config)
    _check_best(config)


def warn_of_classifier_settings(optimizer: OptimizerConfig) -> None:
    """Logs which settings a classifier leaves aside; tasks set them for their policy, so they are not refused."""
    default = OptimizerConfig()
    unused = [key for key in _CLASSIFIER_OPTIMIZER if getattr(optimizer, key) != getattr(default, key)]
    if unused:
        logger.warning("A reward classifier learns by plain AdamW: algo.optimizer.%s are not used.", ", ".join(unused))


def _check_asked(config: RunConfig) -> None:
    """Refuses what the command line asks for in vain; groups and tasks set the same keys for several algorithms."""
    algo = config.algo
    if algo.name not in _CRITICS:
        return
    unfollowed = {
        "algo.image_augmentation": algo.image_augmentation != "none", "algo.noise_samples": algo.noise_samples > 1
    }  # fmt: skip
    asked = sorted(key for key, is_on in unfollowed.items() if is_on and key in config.explicit)
    if asked:
        raise ConfigError(
            f"algo={algo.name} does not follow {' and '.join(asked)}; sft_pi0 and reject_sampling_pi0 do. Leave it out."
        )
    of_flows = sorted(key for key in config.explicit if key.startswith("policy."))
    if algo.name == "sac" and of_flows:
        raise ConfigError(f"algo=sac has a Gaussian policy, which cannot follow {', '.join(of_flows)}: leave it out.")


def _check_optimizers(config: RunConfig) -> None:
    algo = config.algo
    optimizers = {"optimizer": algo.optimizer}
    if algo.name in _CRITICS:
        optimizers |= {"critic_optimizer": algo.critic_optimizer, "temperature_optimizer": algo.temperature_optimizer}
    for key, optimizer in optimizers.items():
        if optimizer.name == "muon" and config.training.mixed_precision == "fp16":
            raise ConfigError(
                f"algo.{key}.name=muon is two optimizers, of which each would change fp16's scale of the loss: set "
                "training.mixed_precision=bf16, or the optimizer's name to adamw."
            )
        if optimizer.schedule == "restart" and algo.optimizer.schedule != "restart":
            raise ConfigError(
                f"algo.{key}.schedule=restart begins again together with the policy's: set "
                f"algo.optimizer.schedule=restart, too (got {algo.optimizer.schedule!r})."
            )
    if algo.name == "reward_classifier" and algo.optimizer.schedule == "restart":
        raise ConfigError("algo=reward_classifier accepts no episodes: algo.optimizer.schedule=restart is not for it.")


def _check_best(config: RunConfig) -> None:
    if config.training.keep_best != "held_out":
        return
    if config.algo.name == "sac":
        raise ConfigError(
            "training.keep_best=held_out ranks policies, but all that algo=sac can measure on held-out episodes is the "
            "error of its critics: set training.keep_best=evaluation."
        )
    if config.dataset.held_out_fraction <= 0:
        raise ConfigError(
            "training.keep_best=held_out needs episodes that are held out: set dataset.held_out_fraction, e.g. to 0.1."
        )


def _changed(value: object, default: object, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yields key, value and default of every leaf that differs."""
    assert is_dataclass(value)
    for item in fields(value):
        mine, usual, key = getattr(value, item.name), getattr(default, item.name), f"{prefix}{item.name}"
        if is_dataclass(mine):
            yield from _changed(mine, usual, f"{key}.")
        elif mine != usual:
            yield key, mine, usual


def _is_below(key: str, groups: tuple[str, ...]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)
