"""Equal parts of a batch whose gradients are accumulated, of whatever dataclasses it is made."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

_Value = TypeVar("_Value")


def pieces(value: _Value, count: int, *, batch_size: int) -> list[_Value]:
    """Returns `count` equal parts of `value`: its tensors' rows, in dataclasses, lists and tuples of any depth.

    Scalars, modules and None are the same in every part.

    Raises:
        ValueError: `batch_size` is no multiple of `count`; the trainer refuses such settings before.
    """
    if batch_size % count:
        raise ValueError(f"Expected a batch that divides into {count} equal parts, got {batch_size} samples.")
    if count == 1:
        return [value]
    size = batch_size // count
    return [_rows(value, slice(start, start + size)) for start in range(0, batch_size, size)]


def _rows(value: Any, chosen: slice) -> Any:  # Any: the structures of several algorithms.
    if isinstance(value, Tensor):
        return value[chosen] if value.ndim else value
    if isinstance(value, list | tuple):
        return type(value)(_rows(each, chosen) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: _rows(getattr(value, item.name), chosen) for item in fields(value)})
    return value
