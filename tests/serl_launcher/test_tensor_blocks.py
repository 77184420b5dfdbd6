import hashlib
import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from serl_launcher.tensor_blocks import fill, read_blocks, spans_of

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.zeros((0, 3), np.float32),
    "b": np.full(7, 2, np.int64),
    "scalar": np.array(5, np.float32),
}


def test_the_blocks_are_the_header_and_every_tensor_and_fill_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    blocks = read_blocks(path)
    content = path.read_bytes()
    assert fill(blocks, len(content))
    assert [block.offset for block in blocks[1:]] == [block.offset + block.size for block in blocks[:-1]]
    assert blocks[-1].offset + blocks[-1].size == len(content)
    assert [hashlib.sha256(content[b.offset : b.offset + b.size]).hexdigest() for b in blocks] == [
        b.sha256 for b in blocks
    ]
    tensors = {hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in TENSORS.values() if tensor.size}
    assert {block.sha256 for block in blocks[1:]} == tensors


def test_one_changed_tensor_changes_one_block(tmp_path):
    save_file(TENSORS, tmp_path / "1.safetensors")
    save_file({**TENSORS, "b": np.full(7, 3, np.int64)}, tmp_path / "2.safetensors")
    first = read_blocks(tmp_path / "1.safetensors")
    second = read_blocks(tmp_path / "2.safetensors")
    assert sum(one != other for one, other in zip(first, second, strict=True)) == 1


def header(content: dict | list | str, data: bytes = b"") -> bytes:
    encoded = json.dumps(content).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    "content",
    [
        b"", b"short", bytes(range(256)), header([]), header("x"), header({"a": 1}),
        header({"a": {"data_offsets": "x"}}),
        header({"a": {"data_offsets": [0, 4]}}), header({"a": {"data_offsets": [4, 8]}}, b"8 bytes."),
        header({"a": {"data_offsets": [0, 4]}, "b": {"data_offsets": [2, 8]}}, b"8 bytes."),
    ],
)  # fmt: skip
def test_what_is_no_table_of_tensors_has_no_blocks(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert read_blocks(path) == ()


def test_other_files_have_no_blocks(tmp_path):
    (tmp_path / "config.json").write_bytes(b"{}")
    assert read_blocks(tmp_path / "config.json") == ()


def test_a_large_tensor_is_several_blocks_so_that_threads_can_share_it():
    mib = 1024**2
    assert spans_of([8, 0, 70 * mib, 4]) == [
        (0, 8), (8, 32 * mib), (8 + 32 * mib, 32 * mib), (8 + 64 * mib, 6 * mib), (8 + 70 * mib, 4),
    ]  # fmt: skip
