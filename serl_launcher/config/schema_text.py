"""Reads the schema itself: which keys exist, their types, defaults and the docstring below each field."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from serl_launcher.config.root import NOT_A_SETTING, RunConfig

MARGIN = 4
WIDTH = 118


@dataclass(kw_only=True, slots=True)
class Setting:
    """One key of the configuration.

    Example:
        Setting(key="environment.hz", kind="float", default=10.0, text="Ticks per second.", is_open=False)
    """

    key: str
    kind: str
    default: object
    text: str
    is_open: bool
    """Whether any key may be added below it."""


@functools.cache
def known_keys() -> dict[str, str]:
    """Returns every key that can be set and its type; sections have the type `section`."""
    sections = {key: "section" for key, _ in _sections(RunConfig, "")}
    return sections | {setting.key: setting.kind for setting in _settings(RunConfig, "")}


@functools.cache
def free_keys() -> list[str]:
    """Returns the keys below which anything may be added."""
    return [setting.key for setting in _settings(RunConfig, "") if setting.is_open]


def describe(groups: dict[str, list[str]], config_name: str) -> str:
    """Returns the help text: groups with their choices, then every key with type, default and meaning."""
    lines = [
        f"Overrides: [group=choice] [key=value] ...   (configuration: {config_name})",
        "--cfg prints the composed configuration.",
        "",
        "Groups",
    ]
    lines += [f"{' ' * MARGIN}{name}: {', '.join(choices)}" for name, choices in groups.items()]
    sections = {"": RunConfig} | dict(_sections(RunConfig, ""))
    for section, schema in sections.items():
        lines += ["", f"{section or 'Run'}: {_first_line(schema)}"]
        for setting in _own_settings(schema, section):
            lines.append(f"{' ' * MARGIN}{setting.key} = {setting.default!r}  ({setting.kind})")
            lines += textwrap.wrap(setting.text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _first_line(schema: type) -> str:
    return (inspect.getdoc(schema) or "").partition("\n")[0]


def _sections(schema: type, prefix: str) -> Iterator[tuple[str, type]]:
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield f"{prefix}{field.name}", kind
            yield from _sections(kind, f"{prefix}{field.name}.")


def _settings(schema: type, prefix: str) -> Iterator[Setting]:
    yield from _own_settings(schema, prefix.rstrip("."))
    for section, kind in _sections(schema, prefix):
        yield from _own_settings(kind, section)


def _own_settings(schema: type, section: str) -> Iterator[Setting]:
    hints, texts = typing.get_type_hints(schema), _field_texts(schema)
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) or field.metadata == NOT_A_SETTING:
            continue
        yield Setting(
            key=f"{section}.{field.name}" if section else field.name,
            kind=_kind_name(kind),
            default=field.default_factory() if callable(field.default_factory) else field.default,
            text=texts.get(field.name, ""),
            is_open=typing.get_origin(kind) is dict,
        )


def _kind_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_origin(kind) else str(kind).replace("typing.", "")


def _field_texts(schema: type) -> dict[str, str]:
    """Returns the string literal that stands below each field, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    texts: dict[str, str] = {}
    for above, below in itertools.pairwise(body):
        if not (isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            texts[above.target.id] = " ".join(str(below.value.value).split())
    return texts
