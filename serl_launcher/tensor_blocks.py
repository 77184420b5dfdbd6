"""The tensors in a safetensors file as ranges of bytes with a checksum each, so that only changed ones need to travel.

    8 bytes: length N of the header    N bytes: JSON, name -> {dtype, shape, data_offsets}    the tensors, without gaps

Read without torch or safetensors, because a robot machine has neither (format: huggingface/safetensors, README).
"""

import hashlib
import itertools
import json
from pathlib import Path

import msgspec

SUFFIX = ".safetensors"
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
_READ_BYTES = 1024 * 1024


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A range of bytes in a file; the header is one block, each tensor another."""

    offset: int
    size: int
    sha256: str


def digest_with_blocks(path: Path) -> tuple[str, tuple[Block, ...]]:
    """Returns the SHA-256 (hex) of a file and its blocks in order, read once; no blocks where it holds no tensors."""
    ranges = _ranges(path) if path.suffix == SUFFIX else []
    whole, blocks = hashlib.sha256(), []
    with path.open("rb") as file:
        for offset, size in ranges:
            part, left = hashlib.sha256(), size
            while left and (piece := file.read(min(left, _READ_BYTES))):
                whole.update(piece)
                part.update(piece)
                left -= len(piece)
            blocks.append(Block(offset, size, part.hexdigest()))
        while piece := file.read(_READ_BYTES):
            whole.update(piece)
    return whole.hexdigest(), tuple(blocks)


def _ranges(path: Path) -> list[tuple[int, int]]:
    """Returns (offset, size) of the header and of each tensor that has bytes; nothing unless they fill the file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    try:
        entries = json.loads(header)
        offsets = [entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"]
        spans = sorted((int(start), int(end)) for start, end in offsets)
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    begin = _LENGTH_BYTES + length
    bounds = [0, begin, *(begin + end for start, end in spans if end > start)]
    is_filled = all(start == former_end for (_, former_end), (start, _) in itertools.pairwise([(0, 0), *spans]))
    if not is_filled or bounds[-1] != path.stat().st_size:
        return []
    return [(start, end - start) for start, end in itertools.pairwise(bounds)]
