"""A TCP proxy between one actor and the learner whose connections can be cut, delayed, stalled and left half-open."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine

LOCALHOST = "127.0.0.1"
_READ_BYTES = 65536
_POLL_S = 0.05


class Proxy:
    """Forwards two ports, requests and broadcasts, in a thread of its own."""

    def __init__(self, target: Callable[[], tuple[str, int, int]]) -> None:
        """`target` returns where the learner is now: host, request port, broadcast port."""
        self._target = target
        self._delay_s = 0.0
        self._is_stalled = False
        self._is_half_open = False
        self._servers: list[asyncio.Server] = []
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self.ports: tuple[int, int] = (0, 0)
        self.num_connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.move()

    def close(self) -> None:
        """Closes every connection and frees the ports."""
        self._call(self._close_servers())
        self.cut()
        self._call(self._cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def move(self) -> None:
        """Listens on other ports from now on and cuts what came through the old ones."""
        self._call(self._close_servers())
        self.cut()
        self._call(self._listen())

    def cut(self) -> None:
        """Closes every connection; new ones are forwarded as before."""
        self._call(self._cut())

    def delay(self, seconds: float) -> None:
        """Holds every piece back for that long; 0 ends it."""
        self._delay_s = seconds

    def stall(self, is_stalled: bool) -> None:
        """Holds everything back, in both directions, without closing anything; later it goes on."""
        self._is_stalled = is_stalled

    def half_open(self, is_half_open: bool) -> None:
        """Closes the learner's ends; the actor's stay open and lead nowhere. Ending it closes those too."""
        self._is_half_open = is_half_open
        self._call(self._cut(only_learner=is_half_open))

    async def _listen(self) -> None:
        for index in (0, 1):
            server = await asyncio.start_server(lambda r, w, i=index: self._accept(i, r, w), LOCALHOST, 0)
            self._servers.append(server)
        first, second = (server.sockets[0].getsockname()[1] for server in self._servers)
        self.ports = (first, second)

    async def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _cut(self, *, only_learner: bool = False) -> None:
        for from_actor, to_learner in list(self._pairs):
            to_learner.transport.abort()
            if not only_learner:
                from_actor.transport.abort()

    async def _cancel_rest(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        host, *ports = self._target()
        try:
            learner_reader, learner_writer = await asyncio.open_connection(host, ports[index])
        except OSError:  # No learner there: the actor sees its connection refused.
            writer.transport.abort()
            return
        pair = (writer, learner_writer)
        self._pairs.add(pair)
        if self._is_half_open:
            learner_writer.transport.abort()
        forth = self._pump(reader, learner_writer, other=writer)
        back = self._pump(learner_reader, writer, other=learner_writer)
        await asyncio.gather(forth, back)
        self._pairs.discard(pair)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, other: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_READ_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                while self._is_stalled:
                    await asyncio.sleep(_POLL_S)
                if not writer.is_closing():
                    writer.write(piece)
                    await writer.drain()
        while self._is_half_open:
            await asyncio.sleep(_POLL_S)
        writer.transport.abort()
        other.transport.abort()

    def _call(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
