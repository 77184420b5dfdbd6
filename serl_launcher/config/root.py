"""The whole configuration of a run."""

from dataclasses import dataclass, field

from serl_launcher.config.actor import ActorConfig, EvaluationConfig
from serl_launcher.config.dataset import DatasetConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.policy import PolicyConfig
from serl_launcher.config.training import AlgoConfig, LoggingConfig, ServerConfig, TrainingConfig
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import ConfigError

NOT_A_SETTING = {"omegaconf_ignore": True}
"""Metadata of a field that nobody sets."""


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Everything that learner, actor and tools read; `serl_launcher.config.load` makes it."""

    unique_identifier: str = "run"
    """Names the run; its files go below `output_dir/unique_identifier`."""
    output_dir: str = "outputs"
    seed: int = 42
    ip: str = "localhost"
    """Address of the learner, as the actor sees it."""
    checkpoint_path: str | None = None
    """Policy to start from (learner) or to evaluate (eval actor): a directory with `model.safetensors`."""
    resume: str = "auto"
    """`auto`: continue the run if it exists. `never`: refuse an existing run. `must`: refuse a new one."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    algo: AlgoConfig = field(default_factory=AlgoConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    explicit: frozenset[str] = field(default_factory=frozenset, metadata=NOT_A_SETTING)
    """Keys that the command line sets, such as `policy.horizon`: requests, where what files say are defaults."""

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never", "must"):
            raise ConfigError(f"resume must be 'auto', 'never' or 'must', got {self.resume!r}.")
        if not self.unique_identifier or "/" in self.unique_identifier:
            raise ConfigError(f"unique_identifier must be a plain name, got {self.unique_identifier!r}.")
