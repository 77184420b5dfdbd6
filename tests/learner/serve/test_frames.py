"""Every byte that a client sees, by a socket that knows nothing of our packing."""

import base64
import hashlib
import os
import socket
import struct

import msgpack
import numpy as np

from tests.learner.serve.serving import serving

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, TEXT, CLOSE = 0x82, 0x81, 0x88
ARRAY_2 = "84c40b5f5f6e6461727261795f5fc3c40464617461c408{values}c4056474797065a33c6634c40573686170659102"
"""float32 [2], as openpi packs it."""
REQUEST = bytes.fromhex(
    "83" "a6696d61676573" "81a363616d"
    "84c40b5f5f6e6461727261795f5fc3c40464617461c50300" + "00" * 768 + "c4056474797065a37c7531c4057368617065931010" "03"
    "a57374617465" + ARRAY_2.format(values=np.array([0.25, 0.5], "<f4").tobytes().hex())
    + "a670726f6d7074a57265616368"
)  # fmt: skip
"""{"images": {"cam": uint8 [16, 16, 3]}, "state": float32 [2], "prompt": "reach"}"""


class RawClient:
    """Speaks WebSocket by hand."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert self._file.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
        headers = dict(iter(self._header, None))
        accepted = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
        assert headers["sec-websocket-accept"] == accepted
        assert "sec-websocket-extensions" not in headers

    def _header(self) -> tuple[str, str] | None:
        line = self._file.readline().decode().strip()
        name, _, value = line.partition(": ")
        return (name.lower(), value) if line else None

    def send(self, payload: bytes) -> None:
        """Sends one binary frame, masked with zeros."""
        self._socket.sendall(bytes([BINARY, 0x80 | 126]) + struct.pack(">H", len(payload)) + bytes(4) + payload)

    def receive(self) -> tuple[int, bytes]:
        """Returns the first byte of the next frame, and its payload."""
        first, length = self._file.read(2)
        assert length < 128, "a server never masks"
        if length == 126:
            [length] = struct.unpack(">H", self._file.read(2))
        return first, self._file.read(length)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def milliseconds(value: float) -> str:
    assert isinstance(value, float)
    return "cb" + struct.pack(">d", value).hex()


def text(value: str) -> str:
    assert len(value) < 32
    return f"{0xA0 | len(value):02x}{value.encode().hex()}"


def expected_reply(timings: dict, *, is_first: bool) -> bytes:
    """The reply to REQUEST with these durations, which alone are not known beforehand."""
    actions = np.tile(np.float32([0.25, 0.5]), (4, 1)).tobytes().hex()
    server = timings["server_timing"]
    previous = "" if is_first else text("prev_total_ms") + milliseconds(server["prev_total_ms"])
    return bytes.fromhex(
        "83" + text("actions")
        + f"84c40b5f5f6e6461727261795f5fc3c40464617461c420{actions}c4056474797065a33c6634c4057368617065920402"
        + text("policy_timing") + "81" + text("infer_ms") + milliseconds(timings["policy_timing"]["infer_ms"])
        + text("server_timing") + ("81" if is_first else "82") + text("infer_ms") + milliseconds(server["infer_ms"])
        + previous
    )  # fmt: skip


def test_replies_are_openpis_byte_for_byte():
    with serving() as port:
        client = RawClient(port)
        kind, metadata = client.receive()
        assert kind == BINARY
        assert metadata == msgpack.packb(
            {
                "robot": "two_joints", "cameras": ["cam"], "state_names": ["x", "y"], "action_names": ["x", "y"],
                "control_hz": 10.0, "policy_version": 3,
            }
        )  # fmt: skip
        for is_first in (True, False):
            client.send(REQUEST)
            kind, reply = client.receive()
            assert kind == BINARY
            assert reply == expected_reply(msgpack.unpackb(reply), is_first=is_first)
        client.close()


def test_an_error_is_a_text_frame_with_the_traceback_and_then_a_close():
    with serving() as port:
        client = RawClient(port)
        client.receive()
        client.send(bytes(200))
        kind, traceback = client.receive()
        assert kind == TEXT
        assert traceback.startswith(b"Traceback (most recent call last):\n")
        assert client.receive() == (
            CLOSE, struct.pack(">H", 1011) + b"Internal server error. Traceback included in previous frame."
        )  # fmt: skip
        client.close()
