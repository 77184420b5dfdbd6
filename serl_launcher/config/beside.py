"""Settings of the person beside the robot: what is in the hand, who judges an episode, the console on the network."""

from dataclasses import dataclass, field
from typing import Any

from serl_launcher.errors import ConfigError

HANDS = ("", "leader", "gamepad", "spacemouse", "keyboard")
JUDGES = ("environment", "keyboard", "classifier", "console", "process", "naive")
REWARDERS = ("process", "naive")
"""Of them, those that say what each step earns."""
OTHER_NAMES = {"env": "environment", "human": "keyboard", "outcome": "classifier"}
"""Of judges, as Hi-ORS's configurations have them."""


@dataclass(kw_only=True, slots=True)
class DevicesConfig:
    """What the person takes over and labels with. Without any, the environment's own person, if it has one."""

    keyboard: str = ""
    """Terminal whose keys count (`t` takes over and hands back, `s`/`f` judge, `S`/`F` correct the last episode):
    `/dev/tty` is the actor's own; empty: no keys."""
    hand: str = ""
    """What the person drives with: `leader`, `gamepad`, `spacemouse`, `keyboard`; empty: nothing of these."""
    path: str = ""
    """Device file of gamepad (`/dev/input/js0`) or SpaceMouse (`/dev/hidraw0`)."""
    takes_over_by_touch: bool = False
    """Whether moving gamepad, SpaceMouse or keyboard axes takes over without a key."""
    axes: dict[str, Any] = field(default_factory=dict)
    """Per action `[axis, scale]`, e.g. `left_j0: [yaw, 0.5]`; axes: x y z roll pitch yaw grip. The scale is in units
    per second where actions are positions, else in units."""

    def __post_init__(self) -> None:
        if self.hand not in HANDS:
            raise ConfigError(f"actor.devices.hand must be one of {HANDS}, got {self.hand!r}.")
        if self.hand in ("gamepad", "spacemouse") and not self.path:
            raise ConfigError(f"actor.devices.path must name the device file of the {self.hand}.")


@dataclass(kw_only=True, slots=True)
class RewardsConfig:
    """Who judges an episode while it runs; each source can end it."""

    sources: list[str] = field(default_factory=lambda: ["environment"])
    """Any of `environment` (the simulator knows; also `env`), `keyboard` (also `human`), `console`, `classifier` (also
    `outcome`); one of `process` (stages seen by classifiers) and `naive` (nearness to `goal`) says what each step
    earns."""
    threshold: float | None = None
    """Probability of success from which a classified picture counts; null: the classifier's own, calibrated."""
    num_positive: int = 5
    """So many of the last `window` pictures must count: single false positives end no episode."""
    window: int = 6
    classifier_path: str | None = None
    """Directory of the reward classifier, which `python -m learner algo=reward_classifier` writes."""
    stage_paths: list[str] = field(default_factory=list)
    """`process`: directories of such classifiers, one per stage, in order."""
    goal: dict[str, float] = field(default_factory=dict)
    """`naive`: values of states by name, in the robot's units; on a command line `+actor.rewards.goal={j0: 0.1}`."""
    goal_scale: float = 0.5
    """`naive`: distance at which a step earns 0."""
    goal_radius: float = 0.05
    """`naive`: distance below which a step earns 1 more."""

    def __post_init__(self) -> None:
        self.sources = [OTHER_NAMES.get(source, source) for source in self.sources]
        if sum(source in REWARDERS for source in self.sources) > 1:
            raise ConfigError(f"actor.rewards.sources may name one of {REWARDERS}, got {self.sources}.")
        if self.goal_scale <= 0:
            raise ConfigError(f"actor.rewards.goal_scale must be positive, got {self.goal_scale}.")
        unknown = [source for source in self.sources if source not in JUDGES]
        if unknown or not self.sources:
            raise ConfigError(f"actor.rewards.sources must name some of {JUDGES}, got {self.sources}.")
        if not 1 <= self.num_positive <= self.window:
            raise ConfigError(
                f"actor.rewards.num_positive must lie in [1, window={self.window}], got {self.num_positive}."
            )


@dataclass(kw_only=True, slots=True)
class ConsoleConfig:
    """The operator console: a web page that the actor serves. Its address, with a token, is in the actor's log."""

    enabled: bool = False
    """Whether there is a page. It can always take over, judge and stop, whatever else the person uses."""
    bind: str = "127.0.0.1"
    """Address it listens at. Beyond loopback nothing is encrypted; `ssh -L 8770:localhost:8770 <robot>` is safer."""
    port: int = 8770
    """0: any free one."""
    fps: float = 10.0
    """Pictures per second that a viewer gets of each camera, at most."""
    jpeg_quality: int = 70
    """Of the pictures on the page, 1..100; recordings have their own."""
    max_viewers: int = 8
    deadman_s: float = 0.5
    """A person who drives and is not heard for so long has lost the robot: it holds still."""
    jog_speed: float = 0.2
    """Full deflection on the page: share of an action's range per second where actions are positions (never more than
    environment.max_speed), else share of the range itself."""

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 60:
            raise ConfigError(f"actor.console.fps must lie in (0, 60], got {self.fps}.")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"actor.console.jpeg_quality must lie in [1, 100], got {self.jpeg_quality}.")
        if not 0 <= self.port < 65536 or self.max_viewers < 1:
            raise ConfigError(
                f"actor.console needs a port below 65536 and 1 viewer or more, got {self.port} and {self.max_viewers}."
            )
        if not self.deadman_s >= 0.2 or not 0 < self.jog_speed <= 1:
            raise ConfigError(
                "actor.console.deadman_s must be 0.2 or more (the page speaks ten times a second) and jog_speed lie in "
                f"(0, 1], got {self.deadman_s} and {self.jog_speed}."
            )
