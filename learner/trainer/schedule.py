"""Learning rate as a pure function of the number of updates."""

import math

from serl_launcher.config.training import OptimizerConfig


def learning_rate(num_updates: int, config: OptimizerConfig) -> float:
    """Returns the rate of the next update after `num_updates`: linear warm-up, then constant or a cosine.

    The first update has lr / (num_warmup_steps + 1). The cosine reaches `decay_lr` at `num_decay_steps`, and stays;
    `cyclic` begins again at `lr` instead (SGDR, arXiv:1608.03983), every `num_decay_steps` - `num_warmup_steps`
    updates. For `restart`, count updates from the last restart.
    """
    if num_updates < config.num_warmup_steps:
        first = config.lr / (config.num_warmup_steps + 1)
        return first + (config.lr - first) * num_updates / config.num_warmup_steps
    if config.schedule == "constant":
        return config.lr
    span = max(config.num_decay_steps - config.num_warmup_steps, 1)
    decayed = num_updates - config.num_warmup_steps
    progress = (decayed % span) / span if config.schedule == "cyclic" else min(decayed / span, 1.0)
    return config.decay_lr + 0.5 * (config.lr - config.decay_lr) * (1 + math.cos(math.pi * progress))


def is_restart_due(num_accepted_episodes: int, num_at_restart: int, config: OptimizerConfig) -> bool:
    """Returns whether enough episodes were accepted since the schedule last began."""
    return config.schedule == "restart" and num_accepted_episodes - num_at_restart >= config.restart_every_episodes
