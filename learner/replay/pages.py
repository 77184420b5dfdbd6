"""Finds the values of a byte-array column inside an uncompressed parquet file, so that they are read in place.

A column chunk is a sequence of pages. A data page is a header (Thrift compact protocol), definition levels where the
column may hold nulls, then the values: each a 4-byte little-endian length and that many bytes. See the Parquet format,
https://parquet.apache.org/docs/file-format/data-pages/.
"""

import struct
from mmap import mmap

import numpy as np
import pyarrow.parquet as pq

_DATA_PAGE = 0
_PLAIN = 0
_HEADER_TYPE, _HEADER_SIZE, _HEADER_DATA_PAGE = 1, 3, 5
_PAGE_NUM_VALUES, _PAGE_ENCODING = 1, 2
_THRIFT_TRUE, _THRIFT_FALSE, _THRIFT_DOUBLE, _THRIFT_BINARY, _THRIFT_STRUCT = 1, 2, 7, 8, 12
_THRIFT_INTEGERS = (4, 5, 6)


class NotPlainError(Exception):
    """The column is compressed, dictionary-encoded, has nulls or is otherwise not readable in place."""


def locate_values(content: mmap, metadata: pq.FileMetaData, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns offset and length, int64 [rows] each, of every value of a byte-array column.

    Args:
        content: The whole file.
        metadata: Its footer.
        column: Dotted path of the leaf column, e.g. `observation.images.cam_high.bytes`.

    Raises:
        NotPlainError: The values do not lie in the file as they are.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    for group_index in range(metadata.num_row_groups):
        group = metadata.row_group(group_index)
        leaf = next((i for i in range(group.num_columns) if group.column(i).path_in_schema == column), None)
        if leaf is None:
            raise NotPlainError(f"Expected a column {column!r} in the file, found none.")
        chunk = group.column(leaf)
        if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or chunk.physical_type != "BYTE_ARRAY":
            raise NotPlainError(f"Column {column!r} is {chunk.compression}, {chunk.encodings}, {chunk.physical_type}.")
        has_levels = metadata.schema.column(leaf).max_definition_level > 0
        position, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
        before = len(offsets)
        while position < end and len(offsets) - before < chunk.num_values:
            position = _locate_in_page(content, position, offsets, lengths, has_levels=has_levels)
    if len(offsets) != metadata.num_rows:
        raise NotPlainError(f"Column {column!r} holds {len(offsets)} values in {metadata.num_rows} rows.")
    return np.array(offsets, np.int64), np.array(lengths, np.int64)


def _locate_in_page(content: mmap, position: int, offsets: list[int], lengths: list[int], *, has_levels: bool) -> int:
    """Appends the values of the page at `position` to both lists; returns the position of the next page."""
    header, start = _read_struct(content, position)
    page = header.get(_HEADER_DATA_PAGE)
    size = header.get(_HEADER_SIZE)
    if header.get(_HEADER_TYPE) != _DATA_PAGE or not isinstance(page, dict) or not isinstance(size, int):
        raise NotPlainError("Expected a data page of version 1.")
    if page.get(_PAGE_ENCODING) != _PLAIN:
        raise NotPlainError(f"Expected plain values, got encoding {page.get(_PAGE_ENCODING)}.")
    end = start + size
    cursor = start
    if has_levels:
        cursor += 4 + struct.unpack_from("<I", content, cursor)[0]
    num_values = page.get(_PAGE_NUM_VALUES)
    while cursor < end:
        length = struct.unpack_from("<I", content, cursor)[0]
        offsets.append(cursor + 4)
        lengths.append(length)
        cursor += 4 + length
        if isinstance(num_values, int):
            num_values -= 1
    if cursor != end or num_values != 0:
        raise NotPlainError("Expected values without nulls that fill their page.")
    return end


def _read_struct(content: mmap, position: int) -> tuple[dict[int, "int | dict | None"], int]:
    """Returns field id to integer or nested struct (other types as None), and the position after the struct."""
    fields: dict[int, int | dict | None] = {}
    field_id = 0
    while True:
        head = content[position]
        position += 1
        if head == 0:
            return fields, position
        delta, kind = head >> 4, head & 0x0F
        if delta:
            field_id += delta
        else:
            field_id, position = _read_zigzag(content, position)
        fields[field_id], position = _read_value(content, position, kind)


def _read_value(content: mmap, position: int, kind: int) -> tuple["int | dict | None", int]:
    if kind in _THRIFT_INTEGERS:
        return _read_zigzag(content, position)
    if kind in (_THRIFT_TRUE, _THRIFT_FALSE):
        return int(kind == _THRIFT_TRUE), position
    if kind == _THRIFT_DOUBLE:
        return None, position + 8
    if kind == _THRIFT_BINARY:
        length, position = _read_varint(content, position)
        return None, position + length
    if kind == _THRIFT_STRUCT:
        return _read_struct(content, position)
    raise NotPlainError(f"Expected a page header, found Thrift type {kind}.")


def _read_varint(content: mmap, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _read_zigzag(content: mmap, position: int) -> tuple[int, int]:
    value, position = _read_varint(content, position)
    return (value >> 1) ^ -(value & 1), position
