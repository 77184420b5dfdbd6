"""Settings of how a policy acts; they change its speed and how chunks join, not what it has learned."""

from dataclasses import dataclass

from serl_launcher.errors import ConfigError

_CHOICES = {
    "precision": ("float32", "bfloat16"),
    "chunking": ("auto", "guided", "given", "off"),
    "chunking_schedule": ("exponential", "linear", "ones", "zeros"),
}


@dataclass(kw_only=True, slots=True)
class ActingConfig:
    """How the learner's server and a local actor run the policy."""

    precision: str = "float32"
    """`float32` or `bfloat16`, of the large matrices."""
    cuda_graph: bool = True
    """Whether a GPU replays the whole call (vision, prefix, all steps) as one graph; no effect on a CPU."""
    compile: bool = False
    """Whether torch.compile makes the kernels: minutes at the first call; without a compiler it goes on as it is."""
    chunking: str = "auto"
    """How a chunk continues the one that a robot is executing. `guided`: led there while sampling (arXiv:2506.07339).
    `given`: the actions under way are given (arXiv:2512.05964), for policies trained with policy.tuning.max_delay.
    `auto`: `given` as far as the policy was trained for the delay, else `guided`. `off`: chunks are independent."""
    chunking_schedule: str = "exponential"
    """How guidance fades from the delay to the end of the old chunk: `exponential`, `linear`, `ones` or `zeros`."""
    max_guidance: float = 10.0
    """Upper limit of the guidance, never more than there are sampling steps; the paper uses 5, LeRobot 10."""

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"policy.acting.{key}: expected one of {', '.join(choices)}; got {getattr(self, key)!r}."
                )
        if self.max_guidance < 0:
            raise ConfigError(f"policy.acting.max_guidance must not be negative, got {self.max_guidance}.")
