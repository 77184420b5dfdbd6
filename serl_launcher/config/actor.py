"""Settings of an actor: who acts, how takeovers go, how it is evaluated."""

from dataclasses import dataclass, field

from serl_launcher.config.beside import ConsoleConfig, DevicesConfig, RewardsConfig
from serl_launcher.errors import ConfigError

MODES = ("online", "collect", "eval")


@dataclass(kw_only=True, slots=True)
class InterventionConfig:
    """The person beside the robot; in simulation a scripted one."""

    enabled: bool = True
    reaction_ticks: int = 3
    """Ticks between trouble and takeover."""
    patience_ticks: int = 12
    """Ticks without progress that count as trouble."""


@dataclass(kw_only=True, slots=True)
class ActorConfig:
    """One robot or one simulator."""

    id: str = "actor-0"
    """Unique per robot; a second actor with the same id is refused."""
    mode: str = "online"
    """`online`: policy with takeovers. `collect`: the person drives. `eval`: a checkpoint is evaluated."""
    policy: str = "remote"
    """`remote`: ask the learner. `local`: fetch the weights and run them here (needs the `policy` extra). `random`:
    random actions, to try a simulator out."""
    device: str = "auto"
    """Where `local` runs them: `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one."""
    execution_horizon: int = 8
    """Actions of a chunk that are executed before the next is asked for. A robot whose time does not wait
    (environment.realtime_factor = 1) goes on executing until the answer is there."""
    chunking: str = "switch"
    """How chunks of such a robot join. `switch`: the newest counts. `ensemble`: all that know the tick are averaged.
    `rtc`: the policy continues what is still planned (real-time chunking)."""
    max_requests: int = 2
    """Requests of such a robot that may be under way at a time (`rtc`: one, unless it would run out of actions)."""
    ensemble_decay: float = 0.01
    """`ensemble`: weights fall as exp(-decay * i), i = 0 for the oldest chunk (ACT, arXiv:2304.13705)."""
    num_episodes: int = 0
    """Finished episodes after which the actor ends, earlier starts of the same run included;
    0: until the learner says stop."""
    num_lanes: int = 1
    """Simulators that this actor plays on side by side, with one request for all their actions."""
    seed_offset: int = 0
    """Start states are drawn with seeds `seed_offset + episode number`."""
    max_change: list[float] = field(default_factory=list)
    """Most that a command may differ from the one before, in robot units per tick: one number per action, one for all,
    or none, where only the bounds of the robot count."""
    max_jump: list[float] = field(default_factory=list)
    """A wish further than this from the last command is a fault, e.g. a chunk that starts elsewhere; shaped like
    `max_change`; none: `environment.max_jump` counts, which the robot's own gate keeps in any case."""
    intervention: InterventionConfig = field(default_factory=InterventionConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    wait_for_policy_s: float = 0.0
    """How long to wait for the learner's first answer before giving up; 0: for ever."""
    flush_s: float = 30.0
    """How long an actor that ends waits until the learner has everything; what is left stays in the spool.
    One that is told to stop waits 5 s at most."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"actor.mode must be 'online', 'collect' or 'eval', got {self.mode!r}.")
        if self.policy not in ("remote", "local", "random"):
            raise ConfigError(f"actor.policy must be 'remote', 'local' or 'random', got {self.policy!r}.")
        if not self.id or "/" in self.id:
            raise ConfigError(f"actor.id must be a plain name, got {self.id!r}.")
        if self.chunking not in ("switch", "ensemble", "rtc"):
            raise ConfigError(f"actor.chunking must be 'switch', 'ensemble' or 'rtc', got {self.chunking!r}.")
        if self.max_requests < 1:
            raise ConfigError(f"actor.max_requests must be 1 or more, got {self.max_requests}.")
        if self.execution_horizon < 1:
            raise ConfigError(f"actor.execution_horizon must be 1 or more, got {self.execution_horizon}.")
        if self.num_lanes < 1:
            raise ConfigError(f"actor.num_lanes must be 1 or more, got {self.num_lanes}.")
        if self.num_episodes < 0:
            raise ConfigError(f"actor.num_episodes must be 0 or more, got {self.num_episodes}.")


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """The eval actor (`actor.mode=eval`): a named checkpoint, fixed start states."""

    num_episodes: int = 100
    first_seed: int = 1_000_000
    """Start states `first_seed .. first_seed + num_episodes - 1`; never used in training."""
    num_videos: int | None = None
    """The first so many episodes are recorded as MP4; null: all."""
    wrong_prompt: bool = False
    """Control: give the policy the prompt of another task."""
    num_lanes: int = 8
    """Episodes that are simulated side by side and share one batched policy call; a real robot plays one at a time."""
    num_attempts: int = 1
    """A start state that was not solved is tried again, up to so many times; the report gives success at 1..k."""
    interventions: bool = False
    """Whether the person beside the robot may take over, by what `actor.devices` and `actor.intervention` name. All
    help is counted, and an episode with help is no success."""
    start_states: str | None = None
    """`starts.json` of an earlier evaluation, whose start states are used again; None: `first_seed` and following."""
    output_dir: str | None = None
    """Where the report goes; None: `eval-<hash of the policy>` in the directory of the run."""

    def __post_init__(self) -> None:
        if min(self.num_episodes, self.num_lanes, self.num_attempts) < 1:
            raise ConfigError(
                "evaluation.num_episodes, num_lanes and num_attempts must be 1 or more, "
                f"got {self.num_episodes}, {self.num_lanes} and {self.num_attempts}."
            )
