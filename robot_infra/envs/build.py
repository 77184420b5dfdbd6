"""Builds the environment that a configuration names, and the person beside it."""

import difflib
from collections.abc import Callable

from robot_infra.envs.gymnasium_env import GymnasiumRobot
from robot_infra.envs.sim_pnp.env import JOINT_NAMES, SimPnp
from robot_infra.envs.sim_pnp.person import ScriptedPerson
from robot_infra.envs.sim_pnp.scenes import PLAY, TASK
from robot_infra.interfaces import Operator, RobotEnv
from robot_infra.wrappers.build import wrap
from robot_infra.wrappers.wrapped import Wrapped
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError


def build(config: EnvironmentConfig) -> RobotEnv:
    """Returns the environment of that name; raises ConfigError that lists the known ones."""
    return wrap(_choose(config.name)(config), config.wrappers)


def build_operator(env: RobotEnv, config: InterventionConfig, *, always_drive: bool = False) -> Operator:
    """Returns the person beside that environment.

    Args:
        env: What `build` returned.
        config: When the person takes over.
        always_drive: Whether the person drives every tick (demonstrations).
    """
    simulator = _known_simulator(env)
    if simulator is not None:
        return ScriptedPerson(simulator, config, always_drive=always_drive)
    raise ConfigError(
        f"No scripted person knows {env.spec.name!r}. Set actor.devices.hand to what you drive with, or "
        "actor.console.enabled=true to drive in a browser, or actor.intervention.enabled=false."
    )


def has_scripted_person(env: RobotEnv) -> bool:
    """Whether `build_operator` knows a person for that environment."""
    return _known_simulator(env) is not None


def _known_simulator(env: RobotEnv) -> SimPnp | None:
    while isinstance(env, Wrapped):
        env = env.env
    return env.env if isinstance(env, GymnasiumRobot) and isinstance(env.env, SimPnp) else None


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


def _build_dobot(config: EnvironmentConfig) -> RobotEnv:
    from robot_infra.robots.dobot.robot import DobotXTrainer

    return DobotXTrainer(config)


def _build_lerobot(config: EnvironmentConfig) -> RobotEnv:
    from robot_infra.robots.lerobot_robot import LeRobotRobot

    return LeRobotRobot(config)


def _build_remote(config: EnvironmentConfig) -> RobotEnv:
    from robot_infra.serve.client import RemoteRobot

    return RemoteRobot(config)


def _build_gymnasium(config: EnvironmentConfig) -> RobotEnv:
    from robot_infra.envs.any_task import make

    task = make(config)
    return GymnasiumRobot(task, config, state_names=task.state_names, action_names=task.action_names)


_BUILDERS: dict[str, Callable[[EnvironmentConfig], RobotEnv]] = {
    "dobot_pnp": _build_dobot,
    "gymnasium": _build_gymnasium,
    "lerobot": _build_lerobot,
    "remote": _build_remote,
    "sim_pnp": _build_sim_pnp,
}


def _choose(name: str) -> Callable[[EnvironmentConfig], RobotEnv]:
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"environment.name must be one of {sorted(_BUILDERS)}, got {name!r}.{hint}")
    return _BUILDERS[name]
