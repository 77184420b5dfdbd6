"""Settings of the replay dataset and of what is sampled from it."""

import math
from dataclasses import dataclass, field

from serl_launcher.errors import ConfigError

VIEWS = ("demonstrations", "all", "successful", "interventions")
"""What `dataset.mixture` may name."""


@dataclass(kw_only=True, slots=True)
class SamplingWeights:
    """Relative chance of a step to be drawn, by what happened around it."""

    policy: float = 1.0
    intervention: float = 2.0
    """Steps that a human commanded during an online episode."""
    pre_intervention: float = 0.0
    """Policy steps in the `pre_intervention_s` before a takeover: they led to the trouble."""
    pre_intervention_s: float = 1.0


@dataclass(kw_only=True, slots=True)
class DatasetConfig:
    """The replay dataset (LeRobot v3) and the demonstrations beside it."""

    replay_name: str = "replay_buffer"
    repo_id: list[str] = field(default_factory=list)
    """Demonstration datasets: directories, or names below HF_LEROBOT_HOME."""
    capacity: int = 200_000
    """Sampling window: the newest steps that are drawn. Older ones stay on disk."""
    pinned: list[str] = field(default_factory=list)
    """Episodes that stay in the sampling window however old they are: numbers, ids, or @FILE with one a line. More can
    be pinned while a learner runs: python -m tools.replay pin."""
    offline_fraction: float = 0.5
    """Share of each batch from the demonstrations, exact; the rest is online."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Share of each batch by view, exact, in place of `offline_fraction`: `demonstrations`; of the online steps that
    the algorithm learns from `all`, those of `successful` episodes, or `interventions`, what a person commanded in an
    episode of the policy. While a view is empty the others take its share. {}: demonstrations and all."""
    held_out_fraction: float = 0.0
    """Share of the episodes of every source that is never drawn, but measured (training.held_out_period)."""
    label: str = "commanded"
    """What a policy imitates. `commanded`: the executed commands. `measured`: the state that the robot was in after
    each, for robots whose actions are positions; where it lags behind its commands, the policy learns the lag."""
    policy_stride: int = 1
    """Of the policy's own steps only each so-many-th begins a sample, counted from where it took control; a person's
    all do. The more, the more a takeover counts; 1: all steps alike."""
    min_episode_steps: int = 2
    """Accepted episodes have at least this many steps (a label right after the start is an accident)."""
    noop_threshold: float = 0.0
    """Steps whose chunk moves no joint by more than this (standard deviation, robot units) are not drawn;
    0 keeps all."""
    noop_horizon: int = 0
    """Actions of a chunk that the no-op filter looks at; 0: the whole chunk. What is executed counts: a chunk that
    stands still first and moves later is asked for again before it moves."""
    weights: SamplingWeights = field(default_factory=SamplingWeights)

    def __post_init__(self) -> None:
        if self.label not in ("commanded", "measured"):
            raise ConfigError(f"dataset.label must be 'commanded' or 'measured', got {self.label!r}.")
        if self.policy_stride < 1:
            raise ConfigError(f"dataset.policy_stride must be 1 or more, got {self.policy_stride}.")
        unknown = sorted(set(self.mixture) - set(VIEWS))
        if unknown:
            raise ConfigError(f"dataset.mixture may name {', '.join(VIEWS)}, got {', '.join(map(repr, unknown))}.")
        shares = list(self.mixture.values())
        if shares and not (min(shares) > 0 and math.isclose(sum(shares), 1.0, abs_tol=1e-6)):
            raise ConfigError(f"dataset.mixture must have positive shares that sum to 1, got {self.mixture}.")
