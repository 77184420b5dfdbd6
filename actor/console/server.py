"""Serves the page and talks to it: one thread, one event loop, for any number of viewers.

A viewer that is slow gets fewer pictures, never late ones: the next is taken when the last has left.
"""

import asyncio
import contextlib
import hmac
import itertools
import logging
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Protocol

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from actor.console import messages
from actor.console.desk import Desk
from actor.console.pictures import Pictures
from serl_launcher.config.beside import ConsoleConfig
from serl_launcher.errors import ConfigError, ProtocolError, Refused

logger = logging.getLogger(__name__)

STATE_S = 0.2
"""Time between two states where no picture comes."""
WRITE_LIMIT_BYTES = 64 * 1024
CLOSE_S = 1.0
START_S = 5.0
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'",
}


@dataclass(slots=True)
class _Viewer:
    number: int
    socket: ServerConnection
    name: str = ""

    def __post_init__(self) -> None:
        self.name = f"viewer {self.number}"


class Shown(Protocol):
    """Whose state is shown: `actor.console.loop_state.LoopState`, or that of an evaluation."""

    def seen_by(self, viewer: int, *, num_viewers: int) -> messages.State:
        """Returns what that viewer is told."""
        ...


@dataclass(kw_only=True, slots=True)
class Page:
    """What is shown: set before the server starts."""

    welcome: messages.Welcome
    state: Shown
    pictures: Pictures


class ConsoleServer:
    """One page on one port. `start` returns when it listens, `close` when it is gone."""

    def __init__(self, config: ConsoleConfig, page: Page, desk: Desk, *, token: str) -> None:
        self._config, self._page, self._desk, self._token = config, page, desk, token
        self._numbers: Iterator[int] = itertools.count(1)
        self._viewers: dict[int, _Viewer] = {}
        self._loop = asyncio.new_event_loop()
        self._started: threading.Event = threading.Event()
        self._ending = asyncio.Event()
        self._failure: OSError | None = None
        self.port = 0
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def start(self) -> None:
        """Listens; raises ConfigError where the port is taken."""
        self._thread.start()
        self._started.wait(START_S)
        if self._failure is not None:
            raise ConfigError(
                f"The console cannot listen at {self._config.bind}:{self._config.port}: {self._failure}. Another actor "
                "may have it: set actor.console.port to another one, or 0 for any."
            ) from self._failure

    def close(self) -> None:
        """Closes every connection; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(2 * CLOSE_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as exc:
            self._failure = exc
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        async with serve(
            self._talk, self._config.bind, self._config.port, process_request=self._answer,
            max_size=messages.MAX_BYTES, write_limit=WRITE_LIMIT_BYTES, compression=None, close_timeout=CLOSE_S,
            ping_interval=2.0, ping_timeout=4.0, logger=_quiet_logger(),
        ) as server:  # fmt: skip
            self.port = _port_of(server)
            self._started.set()
            await self._ending.wait()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers GET requests; returns None where a viewer connects."""
        parts = urllib.parse.urlsplit(request.path)
        given = urllib.parse.parse_qs(parts.query).get("token", [""])[0]
        if parts.path not in ("/", "/live"):
            return connection.respond(HTTPStatus.NOT_FOUND, "There is one page only: /\n")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return connection.respond(
                HTTPStatus.FORBIDDEN, "Open the whole address that the actor prints at its start (with ?token=...).\n"
            )
        if parts.path == "/live":
            return None
        return Response(HTTPStatus.OK, "OK", Headers(HEADERS), _page_bytes())

    async def _talk(self, socket: ServerConnection) -> None:
        if len(self._viewers) >= self._config.max_viewers:
            await socket.close(TRY_AGAIN_LATER, f"{self._config.max_viewers} viewers are here already")
            return
        viewer = _Viewer(next(self._numbers), socket)
        self._viewers[viewer.number] = viewer
        showing = asyncio.create_task(self._show(viewer))
        try:
            await self._listen(viewer)
        except ConnectionClosed:
            pass
        finally:
            self._desk.release(viewer.number)
            del self._viewers[viewer.number]
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await showing

    async def _show(self, viewer: _Viewer) -> None:
        """Sends states and pictures until the viewer is gone."""
        page, sent = self._page, 0
        await viewer.socket.send(messages.encode(_for_viewer(page.welcome, viewer.number)))
        state_due_s = 0.0
        while True:
            now = self._loop.time()
            number, pictures = page.pictures.newest()
            if number != sent or now >= state_due_s:
                state = page.state.seen_by(viewer.number, num_viewers=len(self._viewers))
                await viewer.socket.send(messages.encode(state))
                state_due_s = now + STATE_S
            if number != sent:
                for picture in pictures:
                    await viewer.socket.send(picture)
                sent = number
            await asyncio.sleep(max(1 / self._config.fps - (self._loop.time() - now), 0.005))

    async def _listen(self, viewer: _Viewer) -> None:
        async for text in viewer.socket:
            try:
                self._obey(viewer, messages.decode(text))
            except Refused as exc:
                await viewer.socket.send(messages.encode(messages.Refusal(str(exc))))
            except ProtocolError as exc:
                await viewer.socket.close(POLICY_VIOLATION, str(exc)[:120])
                return

    def _obey(self, viewer: _Viewer, said: messages.Said) -> None:
        desk, number, name = self._desk, viewer.number, viewer.name
        match said:
            case messages.Jog(axes=axes):
                desk.heard(number, axes)
            case messages.Stop():
                desk.stop(name)
            case messages.Name(name=given):
                viewer.name = " ".join(given.split())[:40] or name
            case messages.TakeOver():
                desk.take_over(number, name)
            case messages.HandBack():
                desk.hand_back(number, name)
            case messages.Release():
                desk.release(number)
            case messages.Clear():
                desk.clear(number, name)
            case messages.Judge(outcome=outcome):
                desk.judge(number, name, outcome)
            case messages.Correct(outcome=outcome):
                desk.judge(number, name, outcome, corrects_last=True)


def _for_viewer(welcome: messages.Welcome, number: int) -> messages.Welcome:
    return msgspec.structs.replace(welcome, viewer=number)


def _page_bytes() -> bytes:
    return resources.files("actor.console").joinpath("page.html").read_bytes()


def _port_of(server: Server) -> int:
    return next(iter(server.sockets)).getsockname()[1]


def _quiet_logger() -> logging.Logger:
    """Returns a logger that says nothing of every browser that comes and goes."""
    quiet = logging.getLogger("actor.console.websockets")
    quiet.setLevel(logging.CRITICAL)
    return quiet
