"""What every robot of metal is limited in, whatever its configuration leaves out."""

from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError


def require_limits(config: EnvironmentConfig) -> None:
    """Raises ConfigError where nothing limits the robot's speed or acceleration: it would jump from wish to wish."""
    missing = [name for name in ("max_speed", "max_acceleration") if not getattr(config, name)]
    if missing:
        wanted = " and ".join(f"environment.{name}" for name in missing)
        raise ConfigError(
            f"{config.name!r} moves metal and needs {wanted}: one number for all actions or one per action, in robot "
            "units per second (per second squared). Begin with a tenth of what its maker allows; config/task shows "
            "values for an X-Trainer and an SO-101."
        )
