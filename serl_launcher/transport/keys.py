"""CURVE keys in files: one pair per robot, an allow-list beside the learner's own pair.

    <keys_dir>/learner.secret  learner.public           the learner
    <keys_dir>/allowed/<robot>.public                   who may connect; read again while the learner runs
    <keys_dir>/robots/<robot>/{actor.secret, actor.public, learner.public}     the folder to copy to that robot

Each file holds one key, 40 characters of Z85. Secrets are readable by their owner only.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from serl_launcher.errors import ConfigError

logger = logging.getLogger(__name__)

KEY_LENGTH = 40
_RELOAD_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerKeys:
    """Key pair of the learner, Z85."""

    public: bytes
    secret: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorKeys:
    """Key pair of a robot and the public key of its learner, Z85."""

    public: bytes
    secret: bytes
    learner_public: bytes


class AllowList:
    """The public keys that may connect, by the files in `allowed`; a change counts within a second."""

    def __init__(self, keys_dir: Path) -> None:
        self._directory = keys_dir / "allowed"
        self._robots: dict[bytes, str] = {}
        self._read_s = float("-inf")

    def robot(self, public: bytes) -> str | None:
        """Returns the name of the robot with that key, None for a stranger."""
        if time.monotonic() - self._read_s > _RELOAD_S:
            self._read()
        return self._robots.get(public)

    def is_allowed(self, public: bytes) -> bool:
        """Returns whether the key belongs to a robot of the list."""
        return self.robot(public) is not None

    def _read(self) -> None:
        robots = {}
        for path in sorted(self._directory.glob("*.public")):
            try:
                robots[_read_key(path)] = path.stem
            except ConfigError as exc:  # Being written or removed just now, or damaged: that robot stays out.
                logger.warning("%s", exc)
        self._robots = robots
        self._read_s = time.monotonic()


def read_learner_keys(keys_dir: Path) -> LearnerKeys:
    """Returns the keys of the learner; raises ConfigError where they are missing."""
    return LearnerKeys(public=_read_key(keys_dir / "learner.public"), secret=_read_key(keys_dir / "learner.secret"))


def read_actor_keys(keys_dir: Path, actor_id: str) -> ActorKeys:
    """Returns the keys of an actor: from `keys_dir` itself, or from its folder below `robots`."""
    own = keys_dir if (keys_dir / "actor.secret").exists() else keys_dir / "robots" / actor_id
    return ActorKeys(
        public=_read_key(own / "actor.public"),
        secret=_read_key(own / "actor.secret"),
        learner_public=_read_key(own / "learner.public"),
    )


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as exc:
        raise ConfigError(
            f"Expected a key in {path}: {exc.strerror}. Make keys with `python -m tools.keys init` and "
            "`python -m tools.keys add <robot>`, and set transport.keys_dir."
        ) from exc
    if len(key) != KEY_LENGTH:
        raise ConfigError(f"Expected a key of {KEY_LENGTH} characters in {path}, got {len(key)}. Make a new one.")
    return key
