"""Learning rate as a pure function of the number of updates."""

import math

from serl_launcher.config.training import OptimizerConfig


def learning_rate(num_updates: int, config: OptimizerConfig) -> float:
    """Returns the rate of the next update after `num_updates`: linear warm-up, then constant or cosine.

    The first update has lr / (num_warmup_steps + 1). The cosine reaches `decay_lr` at `num_decay_steps`, and stays.
    """
    if num_updates < config.num_warmup_steps:
        first = config.lr / (config.num_warmup_steps + 1)
        return first + (config.lr - first) * num_updates / config.num_warmup_steps
    if config.schedule == "constant":
        return config.lr
    span = max(config.num_decay_steps - config.num_warmup_steps, 1)
    progress = min((num_updates - config.num_warmup_steps) / span, 1.0)
    return config.decay_lr + 0.5 * (config.lr - config.decay_lr) * (1 + math.cos(math.pi * progress))
