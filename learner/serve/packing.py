"""MessagePack with openpi's form of arrays: `{b"__ndarray__": true, b"data": ..., b"dtype": "<f4", b"shape": [...]}`.

Byte for byte what openpi-client 0.1.2 sends and expects: the four keys are binary and in this order, the dtype is text.
No pickle: arrays of objects are refused on both ways.
"""

from typing import Any

import msgpack
import numpy as np

from serl_launcher.errors import ProtocolError

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_REFUSED_KINDS = "VOc"
"""Structured, object and complex arrays."""


def pack(value: object) -> bytes:
    """Returns the bytes of nested mappings, lists, texts, numbers, numpy arrays and scalars.

    Raises:
        ValueError: An array holds objects, structures or complex numbers.
    """
    packed = msgpack.packb(value, default=_to_plain)
    assert packed is not None
    return packed


def unpack(frame: bytes) -> Any:  # Any: whatever the other side packed.
    """Returns what is in a frame; its arrays are read-only views of it.

    Raises:
        ProtocolError: The bytes are no MessagePack, or an array in them is damaged or not of plain numbers.
    """
    try:
        return msgpack.unpackb(frame, object_hook=_from_plain)
    except (msgpack.UnpackException, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ProtocolError(f"Expected a MessagePack frame, got {len(frame)} bytes that are none: {exc}.") from exc


def _to_plain(value: object) -> dict[bytes, object]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"Expected numbers, texts, arrays, lists and mappings, got {type(value).__name__}.")
    if value.dtype.kind in _REFUSED_KINDS:
        raise ValueError(f"Unsupported dtype: {value.dtype}")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": list(value.shape)}
    return {_SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}


def _from_plain(value: dict[Any, Any]) -> object:
    if _ARRAY in value:
        shape = tuple(value[b"shape"])
        if any(not isinstance(size, int) or size < 0 for size in shape):
            raise ValueError(f"Expected the shape of an array, got {shape!r}.")
        return np.ndarray(buffer=value[b"data"], dtype=_dtype_of(value), shape=shape)
    if _SCALAR in value:
        return _dtype_of(value).type(value[b"data"])
    return value


def _dtype_of(value: dict[Any, Any]) -> np.dtype:
    try:
        name = value[b"dtype"]
        dtype = np.dtype(name)
    except (KeyError, TypeError, SyntaxError) as exc:
        raise ValueError(f"Expected the dtype of an array, got {value.get(b'dtype')!r}.") from exc
    if not isinstance(name, str) or dtype.kind in _REFUSED_KINDS:
        raise ValueError(f"Unsupported dtype: {name}")
    return dtype
