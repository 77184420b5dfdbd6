"""Which layout a directory has."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from serl_launcher.errors import CheckpointError
from serl_launcher.policies.formats import hiors, lerobot, openpi, orbax
from serl_launcher.policies.formats.base import BASE_FILE
from serl_launcher.policies.formats.names import DEAD_HEAD, EMBEDDING, LEROBOT_PREFIX, TIED_HEAD
from serl_launcher.policies.formats.stored import StoredPolicy, check_weights, merged

READERS: dict[str, Callable[[Path], StoredPolicy]] = {
    "hiors": hiors.read,
    "lerobot": lerobot.read,
    "openpi": openpi.read,
    "openpi_jax": orbax.read,
}
WRITERS: dict[str, Callable[[StoredPolicy, Path], None]] = {
    "hiors": hiors.write,
    "lerobot": lerobot.write,
    "openpi": openpi.write,
}
OWN = "hiors"
_WEIGHTS = "model.safetensors"


def format_of(directory: Path) -> str:
    """Returns the name of a directory's layout: a key of `READERS`.

    Raises:
        CheckpointError: It is none of them; the message says what is missing.
    """
    if orbax.params_directory(directory) is not None:
        return "openpi_jax"
    path = directory / _WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            f"Expected a policy at {directory}: a directory with {_WEIGHTS} (hiors, LeRobot, openpi) or params/ "
            "(openpi JAX); found neither. Check checkpoint_path."
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except SafetensorError as exc:
        raise CheckpointError(f"Expected safetensors at {path}: {exc}. The file is damaged; copy it again.") from exc
    # LeRobot's own readers add the prefix where a file lacks it.
    if any(name.startswith(LEROBOT_PREFIX) for name in names) or lerobot.is_type_of(directory):
        return "lerobot"
    if TIED_HEAD in names or DEAD_HEAD in names:
        return "openpi"
    if EMBEDDING in names or (directory / BASE_FILE).is_file():
        return "hiors"
    raise CheckpointError(
        f"Expected the weights of a π0 or π0.5 at {path}, by the names of hiors, LeRobot or openpi; it begins with "
        f"{sorted(names)[:3]}."
    )


def read_stored(directory: Path) -> StoredPolicy:
    """Returns the policy in a directory of any layout; its tensors are not checked yet."""
    return READERS[format_of(directory)](directory)


def write_stored(stored: StoredPolicy, directory: Path, layout: str) -> None:
    """Writes a policy in the layout of that name: a key of `WRITERS`. Only our own keeps LoRA factors apart.

    Raises:
        CheckpointError: A tensor is missing, unexpected or misshapen, or the layout cannot hold this policy.
    """
    check_weights(stored.config, stored.weights)
    WRITERS[layout](stored if layout == OWN else merged(stored), directory)
