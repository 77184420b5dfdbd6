"""Emulated network cameras: motion JPEG over HTTP, one address per camera; can freeze or go silent."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import simplejpeg

BOUNDARY = "picture"


class EmulatedCameras:
    """Serves `http://127.0.0.1:<port>/<camera>`; pictures have a little noise, as real ones do."""

    def __init__(self) -> None:
        """Begins to serve on a free port."""
        self.frozen: set[str] = set()
        """Cameras that repeat their last picture."""
        self.silent: set[str] = set()
        """Cameras that send nothing."""
        self._encoded: dict[str, bytes] = {}
        self._number = 0
        self._news = threading.Condition()
        self._is_closed = False
        self._rng = np.random.default_rng(0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="emulator-cameras", daemon=True).start()

    @property
    def port(self) -> int:
        """Where the cameras are."""
        return self._server.server_address[1]

    def show(self, pictures: dict[str, np.ndarray]) -> None:
        """Sends the next picture of every camera, uint8 (height, width, 3)."""
        encoded = {}
        for name, picture in pictures.items():
            noise = self._rng.integers(-1, 2, picture.shape, np.int16)
            noisy = np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)
            encoded[name] = simplejpeg.encode_jpeg(np.ascontiguousarray(noisy), quality=95, colorsubsampling="444")
        with self._news:
            self._encoded |= {name: picture for name, picture in encoded.items() if name not in self.frozen}
            self._number += 1
            self._news.notify_all()

    def close(self) -> None:
        """Unplugs the cameras."""
        with self._news:
            self._is_closed = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _next(self, number: int) -> int:
        """Waits for a picture after that number; returns its number, or -1 at the end."""
        with self._news:
            self._news.wait_for(lambda: self._number > number or self._is_closed, timeout=5.0)
            return -1 if self._is_closed else self._number

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cameras = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, number = self.path.strip("/"), 0
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while (number := cameras._next(number)) >= 0:
                        picture = cameras._encoded.get(name)
                        if picture is not None and name not in cameras.silent:
                            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                            self.wfile.write(head.encode() + picture + b"\r\n")

            def log_message(self, format: str, *args: object) -> None:
                del format, args  # Requests are nobody's business.

        return Handler
