"""Writes safetensors files while others compute: no copies, no interpreter lock during the long parts.

The file is that of `safetensors.torch.save_file`. It is hashed from memory, once, while it is written and the disk
takes it, so that a publication costs little more than the copy of a file.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from serl_launcher.tensor_blocks import HASHED_AT_ONCE, Block, spans_of

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8
_FLUSHED_BYTES = 128 * 1024 * 1024
"""So much is forced to disk at a time while the rest is written."""


def write_tensors(weights: Mapping[str, Tensor], path: Path) -> tuple[Block, ...]:
    """Writes tensors of the CPU; returns the blocks of the file: the header and each tensor.

    The file is complete when this returns, and on its way to the disk, but not yet forced there. A file that is there
    is written over, in its own place: that saves the system the search for memory and room.
    """
    # As the safetensors library orders them: wide types first, so that every tensor is aligned; then by name.
    names = sorted(weights, key=lambda name: (-weights[name].element_size(), str(weights[name].dtype), name))
    tensors = [weights[name].detach().contiguous() for name in names]
    parts = [memoryview(_header(names, tensors)), *(_bytes_of(tensor) for tensor in tensors)]
    pieces = [piece for part in parts for piece in _divided(part)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        with ThreadPoolExecutor(HASHED_AT_ONCE, thread_name_prefix="hash") as hashing:
            digests = hashing.map(lambda piece: hashlib.sha256(piece).hexdigest(), pieces)
            _write(descriptor, pieces)
            spans = spans_of(map(len, parts))
            return tuple(Block(*span, digest) for span, digest in zip(spans, digests, strict=True))
    finally:
        os.close(descriptor)


def _write(descriptor: int, pieces: Sequence[memoryview]) -> None:
    """Writes everything from the beginning; the disk is at work while the rest is still written."""
    num_bytes = num_flushed = 0
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as flushing:
        flushes = []
        for piece in pieces:
            left = piece
            while left:
                left = left[os.write(descriptor, left) :]
            num_bytes += len(piece)
            if num_bytes - num_flushed >= _FLUSHED_BYTES:
                num_flushed = num_bytes
                flushes.append(flushing.submit(os.fdatasync, descriptor))
        os.ftruncate(descriptor, num_bytes)
        for flush in flushes:
            flush.result()


def _header(names: Sequence[str], tensors: Sequence[Tensor]) -> bytes:
    entries, end = {}, 0
    for name, tensor in zip(names, tensors, strict=True):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(tensor.numel()).view(torch.uint8).numpy().data


def _divided(part: memoryview) -> list[memoryview]:
    return [part[start : start + size] for start, size in spans_of([len(part)])]
