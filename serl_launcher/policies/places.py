"""Where the policy lies that a person names: its own directory, or the training checkpoint around it."""

from pathlib import Path

from serl_launcher.errors import ConfigError
from serl_launcher.policies.formats.orbax import params_directory

POLICY = "policy"
WEIGHTS = "model.safetensors"


def policy_directory(named: str | Path, *, option: str = "checkpoint_path") -> Path:
    """Returns the directory with the weights: the one that is named, or `policy` inside a training checkpoint.

    Args:
        named: By a person.
        option: How it was named, for the message.

    Raises:
        ConfigError: There are no weights at either; the message says what is there instead.
    """
    path = Path(named).expanduser()
    for directory in (path, path / POLICY):
        if (directory / WEIGHTS).is_file() or params_directory(directory) is not None:
            return directory.absolute()
    raise ConfigError(
        f"{option}={str(named)!r}: expected a policy ({WEIGHTS}, or openpi's params/) or a training checkpoint "
        f"around one (policy/{WEIGHTS}); {_found_instead(path)}"
    )


def _found_instead(path: Path) -> str:
    if not path.is_dir():
        return f"there is no directory {path.absolute()}. Check the path."
    inside = sorted(
        each.relative_to(path) for pattern in ("*", "*/*") for each in path.glob(pattern) if _has_policy(each)
    )
    if inside:
        return f"it is a folder around {len(inside)} of them. Name one, e.g. {path / inside[-1]}."
    names = sorted(each.name for each in path.iterdir())[:5]
    return f"it holds {', '.join(names) or 'nothing'}. Check the path."


def _has_policy(path: Path) -> bool:
    return path.name != POLICY and ((path / WEIGHTS).is_file() or (path / POLICY / WEIGHTS).is_file())
