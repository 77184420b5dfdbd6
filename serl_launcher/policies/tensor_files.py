"""Writes safetensors files while others compute: no copies, no interpreter lock during the long parts.

The file is that of `safetensors.torch.save_file`. It is hashed from memory while it is written, so that a publication
costs little more than the copy of a file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from serl_launcher.tensor_blocks import Block

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8
_PIECE_BYTES = 8 * 1024 * 1024


def write_tensors(weights: Mapping[str, Tensor], path: Path) -> tuple[str, tuple[Block, ...]]:
    """Writes tensors of the CPU; returns the SHA-256 (hex) of the file, and its blocks: the header and each tensor.

    The file is complete when this returns, but not yet forced to disk.
    """
    # As the safetensors library orders them: wide types first, so that every tensor is aligned; then by name.
    names = sorted(weights, key=lambda name: (-weights[name].element_size(), str(weights[name].dtype), name))
    tensors = [weights[name].detach().contiguous() for name in names]
    bodies = [_bytes_of(tensor) for tensor in tensors]
    parts = [memoryview(_header(names, tensors)), *bodies]
    with ThreadPoolExecutor(2) as hashing, path.open("wb") as file:
        whole = hashing.submit(_digest, parts)
        blocks = hashing.submit(_blocks, parts)
        for part in parts:
            for piece in _pieces(part):
                file.write(piece)
        return whole.result(), blocks.result()


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


def _pieces(part: memoryview) -> list[memoryview]:
    return [part[start : start + _PIECE_BYTES] for start in range(0, len(part), _PIECE_BYTES)]


def _digest(parts: Sequence[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            digest.update(piece)
    return digest.hexdigest()


def _blocks(parts: Sequence[memoryview]) -> tuple[Block, ...]:
    blocks, offset = [], 0
    for part in parts:
        if len(part):
            blocks.append(Block(offset, len(part), _digest([part])))
        offset += len(part)
    return tuple(blocks)
