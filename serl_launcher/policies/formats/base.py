"""`base.json`: where the weights lie that training leaves as they are, beside a policy that holds the others only."""

from pathlib import Path

import msgspec
from safetensors.torch import load_file
from torch import Tensor

from serl_launcher.errors import CheckpointError
from serl_launcher.files import sha256_of

BASE_FILE = "base.json"


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A file of weights."""

    path: str
    """Seen from the policy's directory."""
    sha256: str


def write_base(directory: Path, base: Base) -> None:
    """Says in a policy's directory where the rest of its weights lies."""
    (directory / BASE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(base)))


def read_base_weights(directory: Path) -> dict[str, Tensor]:
    """Returns the weights that a policy shares with others; none where it holds all of them itself.

    Raises:
        CheckpointError: Their file is missing, or another one than the policy was trained on.
    """
    path = directory / BASE_FILE
    if not path.is_file():
        return {}
    try:
        base = msgspec.json.decode(path.read_bytes(), type=Base)
    except msgspec.MsgspecError as exc:
        raise CheckpointError(f"Expected where the rest of a policy lies in {path}: {exc}.") from exc
    file = directory / base.path
    if not file.is_file():
        raise CheckpointError(
            f"{directory} holds only the weights that were trained; the others were in {file.resolve()}, which is "
            "missing. Copy that file along, or take a published policy (`policies/` of the run), which is whole."
        )
    if sha256_of(file) != base.sha256:
        raise CheckpointError(f"{file.resolve()} is not the file that the policy in {directory} was trained on.")
    return load_file(file)
