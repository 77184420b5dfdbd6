"""Loads a run's configuration: YAML groups and command line over the schema, checked once, at start-up.

    config = load(sys.argv[1:])     # in the `main` of every process
    run_main(main)                  # below `if __name__ == "__main__"`

`--help` prints every group and key, `--cfg` the composed configuration; both end the process.
"""

import difflib
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from serl_launcher.config.reference_keys import told_of
from serl_launcher.config.root import RunConfig
from serl_launcher.config.schema_text import describe, free_keys, known_keys
from serl_launcher.errors import ConfigError, HiorsError

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
EXIT_CONFIG = 2
EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def load(argv: list[str], *, config_name: str = "base") -> RunConfig:
    """Returns the checked configuration for command-line overrides such as `algo=sft_pi0 training.num_gpus=1`.

    Raises:
        ConfigError: A key or a group choice is unknown, a value has the wrong type, or two contradict each other.
        SystemExit: `--help` or `--cfg` was asked for and printed.
    """
    overrides = [argument for argument in argv if not argument.startswith("-")]
    switches = [argument for argument in argv if argument.startswith("-")]
    unknown = [switch for switch in switches if switch not in ("--help", "-h", "--cfg")]
    if unknown:
        raise ConfigError(
            f"Expected overrides like `key=value`, `--help` or `--cfg`, got {unknown[0]!r}."
            + _nearest(unknown[0].lstrip("-").partition("=")[0], [*known_keys(), *group_choices()])
        )
    if "--help" in switches or "-h" in switches:
        _finish(describe(group_choices(), config_name))
    composed = _compose(overrides, config_name)
    if "--cfg" in switches:
        _finish(OmegaConf.to_yaml(composed))
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as exc:
        raise _readable(exc) from exc
    if not isinstance(config, RunConfig):
        raise ConfigError(f"Expected {config_name!r} to start from `schema` in its defaults list; it does not.")
    keys = {override.partition("=")[0].lstrip("+") for override in overrides}
    config.explicit = frozenset(keys - group_choices().keys())
    return config


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs a process: sets up logging, turns expected errors into one message, and exits with `main`'s status.

    A ConfigError exits with 2, another HiorsError with 1, Ctrl-C with 130. Anything else keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        sys.exit(main() or 0)
    except ConfigError as exc:
        logger.error("%s", exc)
        sys.exit(EXIT_CONFIG)
    except HiorsError as exc:
        logger.error("%s: %s", type(exc).__name__, exc)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def config_dir() -> Path:
    """Returns the folder of the YAML files: the repository's, or the copy inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_config"
    return installed if installed.is_dir() else package.parent / "config"


def group_choices() -> dict[str, list[str]]:
    """Returns the configuration groups and what can be chosen in each."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(config_dir().iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


def _compose(arguments: list[str], config_name: str) -> DictConfig:
    ConfigStore.instance().store(name="schema", node=RunConfig)
    checked = [_checked(_parsed(argument)) for argument in arguments]
    try:
        with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3", job_name="hiors"):
            return compose(config_name=config_name, overrides=checked)
    except (HydraException, OmegaConfBaseException) as exc:
        raise _readable(exc) from exc


def _parsed(argument: str) -> Override:
    """Returns one override; the value of a text key is taken literally, whatever signs it has."""
    key, equals, value = argument.partition("=")
    kind = known_keys().get(key.lstrip("+"), "")
    is_literal = kind == "str" or (kind == "str | None" and value != "null")
    if equals and is_literal and value[:1] not in ("'", '"') and "${" not in value:
        # In Hydra's quoted strings a backslash is special only before a quote.
        escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
        argument = f"{key}='{escaped}'"
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as exc:
        raise ConfigError(f"Expected an override like `key=value`, got {argument!r}: {exc}.") from exc
    if override.is_delete() or override.is_sweep_override():
        raise ConfigError(f"Expected one value, as in `key=value`, got {argument!r}; nothing can be removed or swept.")
    return override


def _checked(override: Override) -> str:
    """Returns the override as Hydra wants it; refuses an unknown group, choice or key."""
    groups, keys = group_choices(), known_keys()
    key, text = override.get_key_element().lstrip("+"), str(override.input_line)
    if key in groups:
        choice = str(override.value())
        if choice not in groups[key]:
            choices = ", ".join(groups[key])
            raise ConfigError(f"{key}: expected one of {choices}; got {choice!r}.{_nearest(choice, groups[key])}")
        return text
    if any(key == parent or key.startswith(f"{parent}.") for parent in free_keys()):
        # To Hydra, new members of an open mapping are additions.
        return f"++{text.lstrip('+')}"
    is_value_of_section = keys.get(key) == "section" and not isinstance(override.value(), dict)
    if (key not in keys or (is_value_of_section and told_of(key))) and not key.startswith("hydra."):
        raise ConfigError(f"Unknown key {key!r}.{_hint(key, [*keys, *groups])} See all keys with --help.")
    return text


def _hint(key: str, candidates: list[str]) -> str:
    """Returns what a key of Hi-ORS is here, else the nearest of ours, as a sentence after a space; or nothing."""
    told = told_of(key)
    return f" {told}" if told else _nearest(key, candidates)


def _nearest(name: str, candidates: list[str]) -> str:
    """Returns ` Did you mean 'x'?` for the nearest candidate by its whole path or by its last part, else nothing."""
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if not near:
        by_leaf = {candidate.rpartition(".")[2]: candidate for candidate in reversed(candidates)}
        near = [by_leaf[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], list(by_leaf), n=1)]
    return f" Did you mean {near[0]!r}?" if near else ""


def _readable(exc: BaseException) -> ConfigError:
    """Returns the innermost reason as one line that names the key."""
    reason: BaseException = exc
    while reason.__cause__ is not None:
        reason = reason.__cause__
    if isinstance(reason, ConfigError):
        return reason
    key = getattr(reason, "full_key", None)
    message = str(getattr(reason, "msg", None) or reason).split("\n", 1)[0].rstrip(".")
    hint = _hint(key, list(known_keys())) if key and key.partition("[")[0] not in known_keys() else ""
    return ConfigError(f"{key}: {message}.{hint}" if key else f"{message}.{hint}")


def _finish(text: str) -> NoReturn:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()
    raise SystemExit(0)
