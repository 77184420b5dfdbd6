"""What this machine lacks, and what is not possible without; said once when the actor starts."""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ability:
    """Something that a robot's computer may be without.

    Example:
        Ability(what="av", is_there=False, serves="only for videos", advice="pip install av")
    """

    what: str
    is_there: bool
    serves: str
    """What is possible with it only."""
    advice: str


def abilities() -> list[Ability]:
    """Returns what this machine has and has not; loads nothing."""
    return [
        Ability(
            what="torch", is_there=_has_package("torch"), advice="pip install 'hiors[policy]'",
            serves="only for actor.policy=local, actor.mode=eval, reward classifiers",
        ),
        Ability(
            what="av", is_there=_has_package("av"), advice="pip install av",
            serves="only for videos (environment.save_video, evaluation.num_videos)",
        ),
        Ability(
            what="lerobot", is_there=_has_package("lerobot"), advice="pip install lerobot",
            serves="only for LeRobot's robots (environment.name=lerobot)",
        ),
        Ability(
            what="SpaceMouse", is_there=_readable("hidraw*"), serves="only for actor.devices.hand=spacemouse",
            advice="plug it in, join the group `input`",
        ),
        Ability(
            what="gamepad", is_there=_readable("input/js*"), serves="only for actor.devices.hand=gamepad",
            advice="plug it in, join the group `input`",
        ),
        Ability(
            what="terminal", is_there=sys.stdin is not None and sys.stdin.isatty(),
            serves="only for keys (actor.devices.keyboard=/dev/tty)", advice="start the actor in a terminal or tmux",
        ),
        Ability(
            what="display", is_there=bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
            serves="not needed; MuJoCo draws with MUJOCO_GL=egl or osmesa", advice="",
        ),
    ]  # fmt: skip


def tell(config: RunConfig, found: Callable[[], list[Ability]] = abilities) -> None:
    """Says what is missing and what is not possible without; everything else of the actor works.

    Raises:
        ConfigError: The configuration wants what is missing, e.g. a policy of its own without torch.
    """
    missing = [ability for ability in found() if not ability.is_there]
    _require(config, {ability.what: ability for ability in missing})
    if missing:
        lines = (f"{each.what:<10} {each.serves}{each.advice and '; ' + each.advice}" for each in missing)
        logger.info("The actor works without what this machine lacks:\n    %s", "\n    ".join(lines))


def _require(config: RunConfig, missing: dict[str, Ability]) -> None:
    """Raises ConfigError for packages that this configuration needs; devices say so when they are opened."""
    actor = config.actor
    wants = {
        "torch": [
            name
            for name, is_wanted in (
                ("actor.policy=local", actor.policy == "local" and actor.mode == "online"),
                ("actor.mode=eval", actor.mode == "eval"),
                ("actor.rewards.sources=[classifier]", "classifier" in actor.rewards.sources),
                ("actor.rewards.sources=[process]", "process" in actor.rewards.sources),
            )
            if is_wanted
        ],
        "av": ["environment.save_video=true"] if config.environment.save_video else [],
        "lerobot": ["environment.name=lerobot"] if config.environment.name == "lerobot" else [],
    }
    for what, settings in wants.items():
        if what in missing and settings:
            raise ConfigError(
                f"{' and '.join(settings)} needs {what}, which is not installed here: {missing[what].advice}, or leave "
                "the setting away; everything else of the actor works without it."
            )


def _has_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _readable(pattern: str) -> bool:
    return any(os.access(path, os.R_OK) for path in Path("/dev").glob(pattern))
