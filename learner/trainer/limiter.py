"""Ties gradient updates to new data, so that the trainer idles instead of over-fitting."""

from serl_launcher.config.training import AlgoConfig


def may_update(num_updates: int, num_online_steps: int, config: AlgoConfig) -> bool:
    """Returns whether the next update keeps `algo.update_to_data`.

    Args:
        num_updates: Updates made so far.
        num_online_steps: Steps in the replay, accepted or not: also a rejected episode is news from the robot.
        config: 0 in `update_to_data` means no limit; `min_online_updates` are free.
    """
    if config.update_to_data <= 0:
        return True
    return num_updates < config.min_online_updates + config.update_to_data * num_online_steps


def update_to_data(num_updates: int, num_online_steps: int) -> float:
    """Returns updates per online step; 0 without online steps."""
    return num_updates / num_online_steps if num_online_steps else 0.0
