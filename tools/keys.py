"""Makes the CURVE keys of a learner and its robots: `python -m tools.keys init|add|remove|list [robot]`.

A robot added or removed counts within a second, also while the learner runs.
"""

import argparse
import logging
import shutil
import sys
from pathlib import Path

from serl_launcher.errors import ConfigError
from serl_launcher.transport.keys import read_learner_keys
from serl_launcher.transport.sockets import make_key_pair

logger = logging.getLogger("tools.keys")


def init(keys_dir: Path) -> None:
    """Makes the key pair of the learner; raises ConfigError where there is one already."""
    if (keys_dir / "learner.secret").exists():
        raise ConfigError(
            f"{keys_dir} holds a learner's key already; every robot trusts it. Delete it by hand to renew."
        )
    (keys_dir / "allowed").mkdir(parents=True, exist_ok=True)
    keys_dir.chmod(0o700)
    public, secret = make_key_pair()
    _write_secret(keys_dir / "learner.secret", secret)
    (keys_dir / "learner.public").write_bytes(public)
    logger.info("Keys of the learner: %s. Start it with transport.keys_dir=%s.", keys_dir, keys_dir)


def add(keys_dir: Path, robot: str) -> None:
    """Makes the key pair of a robot and lets it in; raises ConfigError where the name is taken or not plain."""
    learner = read_learner_keys(keys_dir)
    _check_name(robot)
    allowed = keys_dir / "allowed" / f"{robot}.public"
    if allowed.exists():
        raise ConfigError(f"Robot {robot!r} has a key already ({allowed}). Remove it first.")
    folder = keys_dir / "robots" / robot
    folder.mkdir(parents=True, exist_ok=True)
    public, secret = make_key_pair()
    _write_secret(folder / "actor.secret", secret)
    (folder / "actor.public").write_bytes(public)
    (folder / "learner.public").write_bytes(learner.public)
    allowed.write_bytes(public)
    logger.info("Copy %s to the robot machine and start the actor with transport.keys_dir=<that folder>.", folder)


def remove(keys_dir: Path, robot: str) -> None:
    """Shuts a robot out and deletes its keys here; raises ConfigError for an unknown one."""
    _check_name(robot)
    allowed = keys_dir / "allowed" / f"{robot}.public"
    if not allowed.exists():
        raise ConfigError(f"Expected one of {robots(keys_dir)} in {keys_dir}, got {robot!r}.")
    allowed.unlink()
    shutil.rmtree(keys_dir / "robots" / robot, ignore_errors=True)
    logger.info("Robot %s is shut out.", robot)


def robots(keys_dir: Path) -> list[str]:
    """Returns the names of the robots that may connect."""
    return sorted(path.stem for path in (keys_dir / "allowed").glob("*.public"))


def _check_name(robot: str) -> None:
    if not robot or not all(character.isalnum() or character in "-_." for character in robot) or robot[0] == ".":
        raise ConfigError(f"Expected a robot name of letters, digits, '-', '_' and '.', got {robot!r}.")


def _write_secret(path: Path, secret: bytes) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(secret)


def main(arguments: list[str]) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.keys", description="CURVE keys of a learner and its robots.")
    parser.add_argument("command", choices=["init", "add", "remove", "list"])
    parser.add_argument("robot", nargs="?", default="", help="name of the robot, for add and remove")
    parser.add_argument("--dir", type=Path, default=Path("keys"), help="directory of the keys (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if chosen.command == "init":
            init(chosen.dir)
        elif chosen.command == "add":
            add(chosen.dir, chosen.robot)
        elif chosen.command == "remove":
            remove(chosen.dir, chosen.robot)
        else:
            sys.stdout.writelines(f"{robot}\n" for robot in robots(chosen.dir))
    except ConfigError as exc:
        logger.error("%s", exc)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
