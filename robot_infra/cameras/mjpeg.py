"""Pictures of a camera that serves motion JPEG over HTTP (multipart/x-mixed-replace), as most network cameras do."""

import contextlib
import http.client
import urllib.parse
from collections.abc import Iterator

import numpy as np
import simplejpeg

from serl_launcher.errors import RobotError

MAX_PICTURE_BYTES = 16 * 1024 * 1024
TIMEOUT_S = 2.0


class MjpegSource:
    """One stream; satisfies `robot_infra.cameras.frames.PictureSource`."""

    def __init__(self, url: str) -> None:
        """Takes the address, e.g. `http://192.168.5.20:8081/stream`; connects with the first picture.

        Raises:
            RobotError: It is no http address.
        """
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme != "http" or not self._parts.hostname:
            raise RobotError(f"Expected a camera address like http://host:port/path, got {url!r}.")
        self._url = url
        self._connection: http.client.HTTPConnection | None = None

    def pictures(self) -> Iterator[np.ndarray]:
        """Yields uint8 (height, width, 3) RGB; raises RobotError or OSError when the stream ends or is damaged."""
        connection = http.client.HTTPConnection(self._parts.hostname or "", self._parts.port or 80, timeout=TIMEOUT_S)
        self._connection = connection
        try:
            connection.request("GET", self._parts.path or "/")
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise RobotError(f"Expected a stream at {self._url}, got status {response.status} {response.reason}.")
            while True:
                yield _decoded(response.read(self._next_length(response)), self._url)
        except http.client.HTTPException as exc:
            raise RobotError(f"Expected a stream at {self._url}: {type(exc).__name__} {exc}.") from exc
        finally:
            connection.close()

    def close(self) -> None:
        """Cuts the stream off."""
        if self._connection is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(2)

    def _next_length(self, response: http.client.HTTPResponse) -> int:
        """Reads the headers of the next part; returns its length."""
        length = 0
        for _ in range(64):
            line = response.readline(1024)
            if not line:
                raise RobotError(f"The stream {self._url} ended.")
            name, _, value = line.strip().partition(b":")
            if name.lower() == b"content-length" and value.strip().isdigit():
                length = int(value)
            if not line.strip() and length:
                break
        if not 0 < length <= MAX_PICTURE_BYTES:
            raise RobotError(
                f"Expected parts with Content-Length up to {MAX_PICTURE_BYTES} in {self._url}, got {length}."
            )
        return length


def _decoded(encoded: bytes, url: str) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    except ValueError as exc:
        raise RobotError(f"Expected JPEG pictures from {url}: {exc}.") from exc
