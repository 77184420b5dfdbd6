import msgpack
import numpy as np
import pytest

from learner.serve.packing import pack, unpack
from serl_launcher.errors import ProtocolError

VECTORS = [
    (
        np.array([1, 2], np.float32),
        "84c40b5f5f6e6461727261795f5fc3c40464617461c4080000803f00000040c4056474797065a33c6634c40573686170659102",
    ),
    (
        {"prompt": "a", "observation/state": np.zeros(2, np.float32)},
        "82a670726f6d7074a161b16f62736572766174696f6e2f737461746584c40b5f5f6e6461727261795f5fc3c40464617461"
        "c4080000000000000000c4056474797065a33c6634c40573686170659102",
    ),
    (
        np.float32(1.5),
        "83c40d5f5f6e7067656e657269635f5fc3c40464617461cb3ff8000000000000c4056474797065a33c6634",
    ),
    (
        np.array(3, np.int32),
        "84c40b5f5f6e6461727261795f5fc3c40464617461c40403000000c4056474797065a33c6934c405736861706590",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), VECTORS)
def test_the_bytes_are_those_of_the_published_client(value, expected):
    assert pack(value).hex() == expected


@pytest.mark.parametrize(("value", "encoded"), VECTORS)
def test_the_published_bytes_are_understood(value, encoded):
    decoded = unpack(bytes.fromhex(encoded))
    if isinstance(value, dict):
        assert decoded["prompt"] == "a"
        decoded, value = decoded["observation/state"], value["observation/state"]
    np.testing.assert_array_equal(decoded, value)
    assert (decoded.dtype, np.shape(decoded)) == (value.dtype, np.shape(value))


def test_everything_that_robots_send_comes_back():
    sent = {
        "images": {"cam": np.arange(24, dtype=np.uint8).reshape(2, 4, 3)},
        "prompt": np.array("pick"),
        "n": np.int64(3), "x": np.float64(0.5), "flag": np.bool_(True), "list": [1, 2.5, None, "text"],
    }  # fmt: skip
    got = unpack(pack(sent))
    np.testing.assert_array_equal(got["images"]["cam"], sent["images"]["cam"])
    assert got["prompt"].item() == "pick"
    assert (got["n"], got["x"], bool(got["flag"]), got["list"]) == (3, 0.5, True, [1, 2.5, None, "text"])
    assert not got["images"]["cam"].flags.writeable


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.zeros(2, [("a", "f4")]), np.zeros(2, np.complex64), {1, 2}, object()]
)
def test_objects_structures_and_complex_numbers_are_not_packed(value):
    with pytest.raises((ValueError, TypeError), match=r"Unsupported dtype|Expected numbers"):
        pack(value)


def encoded_array(**changes):
    array = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2], **changes}
    return msgpack.packb({key.encode() if isinstance(key, str) else key: value for key, value in array.items()})


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"\xc1", b"\x81", encoded_array(dtype="|O8"), encoded_array(dtype="f4,f4"), encoded_array(dtype=7),
        encoded_array(dtype="no such"), encoded_array(shape=[3]), encoded_array(shape=[2**40]),
        encoded_array(shape=[-1]), encoded_array(shape="x"), encoded_array(data=b"abc"), encoded_array(data="text"),
        pack([1, 2]) + b"\x00", b"\x91" * 5000,
    ],
)  # fmt: skip
def test_damaged_frames_are_refused_with_a_reason(frame):
    with pytest.raises(ProtocolError, match="Expected a MessagePack frame"):
        unpack(frame)
