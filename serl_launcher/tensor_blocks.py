"""The tensors in a safetensors file as ranges of bytes with a checksum each, so that only changed ones need to travel.

    8 bytes: length N of the header    N bytes: JSON, name -> {dtype, shape, data_offsets}    the tensors, without gaps

The blocks fill the file, so their checksums are the file's: it is hashed once, by several threads. Read without torch
or safetensors, because a robot machine has neither (format: huggingface/safetensors, README).
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

SUFFIX = ".safetensors"
HASHED_AT_ONCE = 2
"""Threads that hash one file: a core of today hashes as fast as half of a disk writes."""
_MAX_BLOCK_BYTES = 32 * 1024 * 1024
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
_READ_BYTES = 1024 * 1024


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A range of bytes in a file: the header, a tensor, or a part of a large one."""

    offset: int
    size: int
    sha256: str


def spans_of(sizes: Iterable[int]) -> list[tuple[int, int]]:
    """Returns (offset, size) of the blocks of header and tensors that follow one another; large ones are divided."""
    spans, begin = [], 0
    for size in sizes:
        end = begin + size
        spans += [(start, min(_MAX_BLOCK_BYTES, end - start)) for start in range(begin, end, _MAX_BLOCK_BYTES)]
        begin = end
    return spans


def read_blocks(path: Path) -> tuple[Block, ...]:
    """Returns the blocks of a file in order, none where it holds no tensors."""
    return digests_at(path, spans_of(_sizes(path) if path.suffix == SUFFIX else []))


def digests_at(path: Path, spans: Sequence[tuple[int, int]]) -> tuple[Block, ...]:
    """Returns blocks with the SHA-256 of what a file holds at each (offset, size)."""
    with ThreadPoolExecutor(HASHED_AT_ONCE, thread_name_prefix="hash") as threads:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            digests = threads.map(lambda span: _digest_at(descriptor, *span), spans)
            return tuple(Block(*span, digest) for span, digest in zip(spans, digests, strict=True))
        finally:
            os.close(descriptor)


def fill(blocks: Sequence[Block], size: int) -> bool:
    """Whether blocks follow one another without gaps and fill a file of `size` bytes."""
    ends = [0, *(block.offset + block.size for block in blocks)]
    return all(block.offset == end and block.size > 0 for block, end in zip(blocks, ends, strict=False)) and (
        ends[-1] == size
    )


def _digest_at(descriptor: int, offset: int, size: int) -> str:
    digest, end = hashlib.sha256(), offset + size
    while offset < end and (piece := os.pread(descriptor, min(_READ_BYTES, end - offset), offset)):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()


def _sizes(path: Path) -> list[int]:
    """Returns the sizes of the header and of each tensor that has bytes; nothing unless they fill the file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    try:
        entries = json.loads(header)
        offsets = [entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"]
        spans = sorted((int(start), int(end)) for start, end in offsets)
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    is_filled = all(start == former_end for (_, former_end), (start, _) in itertools.pairwise([(0, 0), *spans]))
    sizes = [_LENGTH_BYTES + length, *(end - start for start, end in spans if end > start)]
    return sizes if is_filled and sum(sizes) == path.stat().st_size else []
