"""Who says how an episode went: keys, the console, a classifier, the environment; in time, late, or corrected."""

from actor.rewards.bus import RewardBus, Verdict
from actor.rewards.judged_env import JudgedEnv

__all__ = ["JudgedEnv", "RewardBus", "Verdict"]
