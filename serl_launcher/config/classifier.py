"""Settings of the reward classifier."""

from dataclasses import dataclass, field

from serl_launcher.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class ClassifierConfig:
    """How success is learned to be seen in pictures, from labelled episodes."""

    image_keys: list[str] = field(default_factory=list)
    """Cameras it looks at; empty: all of the dataset's."""
    uses_state: bool = False
    """Whether it is told the robot's state, too."""
    features: int = 64
    """Numbers that each camera becomes."""
    hidden_dims: list[int] = field(default_factory=lambda: [128])
    num_positive_steps: int = 1
    """Pictures at the end of a successful episode that show success: the final one, and so many minus one before."""
    num_ignored_steps: int = 2
    """Pictures before those that count neither way: success may be visible already."""
    validation_fraction: float = 0.25
    """Share of the episodes that is never learned from. The threshold is calibrated on half of them, and its rates are
    measured on the others."""
    max_false_positive_rate: float = 0.01
    """Highest share of pictures without success, among those not learned from, that may pass the threshold."""
    image_shift: int = 4
    """Random shift of training pictures, in pixels; 0: none."""
    evaluation_period: int = 100
    """Updates between two looks at the held-out episodes; the best of them is kept."""

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ConfigError(
                f"algo.classifier.validation_fraction must lie between 0 and 1, got {self.validation_fraction}."
            )
        if not 0 <= self.max_false_positive_rate < 1:
            raise ConfigError(
                f"algo.classifier.max_false_positive_rate must lie in [0, 1), got {self.max_false_positive_rate}."
            )
        if self.num_positive_steps < 1 or self.num_ignored_steps < 0:
            raise ConfigError(
                "algo.classifier.num_positive_steps must be 1 or more and num_ignored_steps 0 or more, got "
                f"{self.num_positive_steps} and {self.num_ignored_steps}."
            )
