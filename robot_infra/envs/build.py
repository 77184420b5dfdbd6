"""Builds the environment that a configuration names, and the person beside it."""

import difflib
from collections.abc import Callable

from robot_infra.envs.gymnasium_env import GymnasiumRobot
from robot_infra.envs.sim_pnp.env import JOINT_NAMES, SimPnp
from robot_infra.envs.sim_pnp.person import ScriptedPerson
from robot_infra.envs.sim_pnp.scenes import PLAY, TASK
from robot_infra.interfaces import Operator, RobotEnv
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError


def build(config: EnvironmentConfig) -> RobotEnv:
    """Returns the environment of that name; raises ConfigError that lists the known ones."""
    return _choose(config.name)(config)


def build_operator(env: RobotEnv, config: InterventionConfig, *, always_drive: bool = False) -> Operator:
    """Returns the person beside that environment.

    Args:
        env: What `build` returned.
        config: When the person takes over.
        always_drive: Whether the person drives every tick (demonstrations).
    """
    if isinstance(env, GymnasiumRobot) and isinstance(env.env, SimPnp):
        return ScriptedPerson(env.env, config, always_drive=always_drive)
    raise ConfigError(f"No scripted person knows {type(env).__name__}. Set actor.intervention.enabled=false.")


def _build_sim_pnp(config: EnvironmentConfig) -> RobotEnv:
    unknown = set(config.options) - {"catalogue"}
    if unknown:
        raise ConfigError(f"environment.options of sim_pnp knows 'catalogue' only, got {sorted(unknown)}.")
    catalogues = {"task": TASK, "play": PLAY}
    catalogue = config.options.get("catalogue", "task")
    if catalogue not in catalogues:
        raise ConfigError(f"environment.options.catalogue must be one of {sorted(catalogues)}, got {catalogue!r}.")
    width, height = config.image_size
    env = SimPnp(
        image_size=(width, height), max_episode_length=config.max_episode_length, catalogue=catalogues[catalogue]
    )
    return GymnasiumRobot(env, config, state_names=JOINT_NAMES, action_names=JOINT_NAMES)


_BUILDERS: dict[str, Callable[[EnvironmentConfig], RobotEnv]] = {"sim_pnp": _build_sim_pnp}


def _choose(name: str) -> Callable[[EnvironmentConfig], RobotEnv]:
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"environment.name must be one of {sorted(_BUILDERS)}, got {name!r}.{hint}")
    return _BUILDERS[name]
