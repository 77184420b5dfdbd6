"""Settings of the trainer: algorithm, optimiser, hardware, checkpoints, logging."""

from dataclasses import dataclass, field

from serl_launcher.config.classifier import ClassifierConfig
from serl_launcher.config.sac import SacConfig
from serl_launcher.errors import ConfigError

SCHEDULES = ("constant", "cosine", "cyclic", "restart")
AUGMENTATIONS = ("none", "light", "openpi")
BEST_BY = ("none", "held_out", "evaluation")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """Warm-up and decay have openpi's and LeRobot's shape."""

    name: str = "adamw"
    """`adamw`, or `muon` for the matrices inside layers and AdamW for the rest (needs few updates for small
    policies)."""
    lr: float = 2.5e-5
    muon_lr_ratio: float = 1.0
    """Learning rate of Muon's matrices relative to `lr`."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    weight_decay: float = 1e-10
    max_grad_norm: float = 1.0
    schedule: str = "cosine"
    """`constant`; `cosine`: down to `decay_lr` once; `cyclic`: again every `num_decay_steps`; `restart`: again
    whenever `restart_every_episodes` more episodes were accepted. All warm up first."""
    num_warmup_steps: int = 100
    num_decay_steps: int = 500
    """Update at which a cosine reaches `decay_lr`; with `cyclic` the length of a cycle."""
    restart_every_episodes: int = 20
    """With `restart`: newly accepted episodes after which the rate warms up and decays again."""
    decay_lr: float = 2.5e-6
    ema: float = 0.0
    """Decay of the averaged weights that are published; 0: none."""

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "muon"):
            raise ConfigError(f"algo.optimizer.name must be 'adamw' or 'muon', got {self.name!r}.")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"algo.optimizer.schedule must be one of {list(SCHEDULES)}, got {self.schedule!r}.")
        if self.restart_every_episodes < 1:
            raise ConfigError(
                f"algo.optimizer.restart_every_episodes must be 1 or more, got {self.restart_every_episodes}."
            )


@dataclass(kw_only=True, slots=True)
class AlgoConfig:
    """What is learned, and from which steps."""

    name: str = "sft_pi0"
    """`sft_pi0`, `reject_sampling_pi0`, `sac`, `sac_pi0`, `reward_classifier` or `data_collection`."""
    batch_size: int = 64
    noise_samples: int = 1
    """Flow-matching (noise, time) draws per observation; they share one pass of the vision-language prefix."""
    max_updates: int = 100_000
    max_seconds: float = 0.0
    """Wall time of training after which the run ends; 0: no limit."""
    publish_every: int = 50
    """Updates between two published policies."""
    training_starts: int = 10
    """Accepted online steps before the first update."""
    success_threshold: float = 0.7
    """Episodes whose return reaches it are accepted; with `threshold_schedule` the value in force may be higher."""
    threshold_schedule: list[float] = field(default_factory=list)
    """Non-decreasing thresholds m_1 <= ... <= m_N, one per `threshold_period` accepted episodes (Hi-ORS, 2.2)."""
    threshold_period: int = 100
    update_to_data: float = 0.0
    """Most updates per new online step; 0: not limited. The trainer waits when it would exceed it."""
    min_online_updates: int = 0
    """Updates allowed before the limiter counts."""
    stop_after_episodes: int = 0
    """`data_collection`: sealed episodes after which the run ends; 0: never."""
    image_augmentation: str = "light"
    """Random changes of images per sample: `none`; `light`: brightness and contrast (also `true`); `openpi`: also crop,
    rotation and saturation, and all of it stronger."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Of the policy."""
    critic_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """`sac`, `sac_pi0`: of the critics and, in `sac`, of the encoder."""
    temperature_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """`sac`: of the entropy's weight."""
    rl_steps: int = 1
    """`sac_pi0`: reinforcement updates at the beginning of each cycle."""
    sft_steps: int = 0
    """`sac_pi0`: supervised updates that follow them, on successful episodes and demonstrations."""
    sac: SacConfig = field(default_factory=SacConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """`reward_classifier`."""

    def __post_init__(self) -> None:
        # What was a switch in earlier configurations.
        named = {"true": "light", "false": "none"}.get(str(self.image_augmentation).lower(), self.image_augmentation)
        if named not in AUGMENTATIONS:
            raise ConfigError(f"algo.image_augmentation must be one of {list(AUGMENTATIONS)}, got {named!r}.")
        self.image_augmentation = named
        if sorted(self.threshold_schedule) != self.threshold_schedule:
            raise ConfigError(f"algo.threshold_schedule must not decrease, got {self.threshold_schedule}.")


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Hardware and checkpoints."""

    num_gpus: int = 0
    """One trainer process per GPU; 0: CPU."""
    num_cpu_ranks: int = 1
    """Trainer processes where `num_gpus` is 0; they share a batch as GPUs do."""
    mixed_precision: str = "no"
    """`no`, `bf16` or `fp16`."""
    gradient_accumulation_steps: int = 1
    deepspeed_config: str | None = None
    """DeepSpeed settings as JSON (ZeRO stage 0, 1 or 2), such as config/zero2.json; AdamW only."""
    num_threads: int = 1
    """CPU threads of one trainer rank."""
    checkpoint_period: int = 500
    """Updates between two checkpoints."""
    keep_checkpoints: int = 3
    """Newest checkpoints that stay."""
    keep_best: str = "none"
    """Which further checkpoint stays, and is named in `checkpoints/BEST`: that of the smallest loss on held-out
    episodes (`held_out`), or of the highest success rate among the run's evaluations (`evaluation`)."""
    held_out_period: int = 100
    """Updates between two losses on held-out episodes; needs dataset.held_out_fraction."""
    held_out_samples: int = 64
    """Samples in that loss."""
    max_skipped_updates: int = 10
    """Updates in a row whose loss or gradient is not finite, after which training goes back to its last checkpoint;
    each of them is skipped and changes nothing."""
    max_rollbacks: int = 3
    """How often training goes back within 1000 updates before it gives up."""

    def __post_init__(self) -> None:
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ConfigError(f"training.mixed_precision must be 'no', 'bf16' or 'fp16', got {self.mixed_precision!r}.")
        if self.keep_best not in BEST_BY:
            raise ConfigError(f"training.keep_best must be one of {list(BEST_BY)}, got {self.keep_best!r}.")
        for name in ("num_cpu_ranks", "gradient_accumulation_steps", "checkpoint_period", "held_out_period",
                     "held_out_samples", "max_skipped_updates"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be 1 or more, got {getattr(self, name)}.")

    @property
    def num_ranks(self) -> int:
        """Trainer processes on this machine."""
        return self.num_gpus if self.num_gpus > 0 else self.num_cpu_ranks


@dataclass(kw_only=True, slots=True)
class ServerConfig:
    """The learner server: inference and ingest."""

    device: str = "auto"
    max_batch: int = 16
    """Action requests answered by one policy call."""
    max_wait_ms: float = 2.0
    """How long the first request of a batch waits for others."""
    num_threads: int = 1
    """CPU threads of inference."""
    prometheus_port: int = 0
    """Serves metrics at http://<prometheus_host>:<port>/metrics; 0: does not."""
    prometheus_host: str = "127.0.0.1"
    """Address of that port; `0.0.0.0` where another machine scrapes, which every machine then can."""
    openpi_port: int = 0
    """Serves the newest policy by openpi's websocket protocol as well; 0: does not."""
    openpi_host: str = "127.0.0.1"
    """Address of that port; anything but loopback needs `openpi_key_file`."""
    openpi_key_file: str | None = None
    """File whose first line its clients must send as `Authorization: Api-Key <key>`."""
    openpi_robot: str = "native"
    """What its clients are: `native`, or a robot of serl_launcher/transforms."""


@dataclass(kw_only=True, slots=True)
class LoggingConfig:
    """Where metrics go; a JSON-lines file is always written."""

    logger: str = "offline"
    """`wandb`, `tensorboard`, `offline` (files only) or `debug` (files and terminal)."""
    project: str = "hiors"
    entity: str | None = None
    log_period: int = 10
    """Updates between two rows."""

    def __post_init__(self) -> None:
        if self.logger not in ("wandb", "tensorboard", "offline", "debug"):
            raise ConfigError(f"logging.logger must be wandb, tensorboard, offline or debug, got {self.logger!r}.")
