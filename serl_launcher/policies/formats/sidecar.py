"""`hiors.json`: what a foreign layout has no place for, written beside it. Foreign readers do not see it."""

from pathlib import Path

import msgspec

from serl_launcher.config.policy import PolicyConfig
from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats.stored import StoredPolicy
from serl_launcher.specs import RobotSpec

SIDECAR_FILE, TOKENIZER_FILE = "hiors.json", "tokenizer.model"


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """The policy's own settings and the robot's names, bounds and rate."""

    policy: PolicyConfig
    robot: RobotSpec | None = None


def read_sidecar(directory: Path) -> Sidecar | None:
    """Returns what `write_sidecar` wrote, None where there is none; raises CheckpointError on any other content."""
    path = directory / SIDECAR_FILE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except msgspec.MsgspecError as exc:
        raise CheckpointError(f"Expected the settings of a policy at {path}: {exc}. Convert the policy again.") from exc


def write_sidecar(stored: StoredPolicy, directory: Path) -> None:
    """Writes settings and robot."""
    encoded = msgspec.json.encode(Sidecar(policy=stored.config, robot=stored.spec))
    (directory / SIDECAR_FILE).write_bytes(msgspec.json.format(encoded))


def read_tokenizer(directory: Path) -> bytes | None:
    """Returns the SentencePiece model of a directory, if it has one."""
    path = directory / TOKENIZER_FILE
    return path.read_bytes() if path.is_file() else None
