"""Settings of the trainer: algorithm, optimiser, hardware, checkpoints, logging."""

from dataclasses import dataclass, field

from serl_launcher.errors import ConfigError


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
    """`constant` or `cosine`; both warm up."""
    num_warmup_steps: int = 100
    num_decay_steps: int = 500
    decay_lr: float = 2.5e-6
    ema: float = 0.0
    """Decay of the averaged weights that are published; 0: none."""

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "muon"):
            raise ConfigError(f"algo.optimizer.name must be 'adamw' or 'muon', got {self.name!r}.")


@dataclass(kw_only=True, slots=True)
class AlgoConfig:
    """What is learned, and from which steps."""

    name: str = "sft_pi0"
    """`sft_pi0`, `reject_sampling_pi0` or `data_collection`."""
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
    image_augmentation: bool = True
    """Random shift and brightness per sample."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if sorted(self.threshold_schedule) != self.threshold_schedule:
            raise ConfigError(f"algo.threshold_schedule must not decrease, got {self.threshold_schedule}.")


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Hardware and checkpoints."""

    num_gpus: int = 0
    """0: CPU."""
    mixed_precision: str = "no"
    """`no`, `bf16` or `fp16`."""
    gradient_accumulation_steps: int = 1
    deepspeed_config: str | None = None
    num_threads: int = 1
    """CPU threads of one trainer rank."""
    checkpoint_period: int = 500
    """Updates between two checkpoints."""
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ConfigError(f"training.mixed_precision must be 'no', 'bf16' or 'fp16', got {self.mixed_precision!r}.")


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
