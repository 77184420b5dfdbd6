"""The pattern of openpi's server: the policy runs inside the event loop, so that one call holds up every client."""

import asyncio
import threading
import time

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from learner.serve.packing import pack, unpack
from learner.server.inference import Policy


class InLoopServer:
    """Answers each client by a policy call of its own, in the thread of the sockets; no batches."""

    def __init__(self, policy: Policy) -> None:
        """Serves `policy`."""
        self._policy = policy
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> int:
        """Opens a free port of this machine and returns it."""
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return next(iter(server.sockets)).getsockname()[1]

    def stop(self) -> None:
        """Ends the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _open(self) -> Server:
        return await serve(self._answer_all, "127.0.0.1", 0, compression=None, max_size=None)

    async def _answer_all(self, connection: ServerConnection) -> None:
        await connection.send(pack({}))
        try:
            async for frame in connection:
                assert isinstance(frame, bytes)
                observation = unpack(frame)
                cameras = [observation["images"][name] for name in self._policy.spec.camera_names]
                began_s = time.perf_counter()
                actions = self._policy.act(
                    np.stack(cameras)[None], np.asarray(observation["state"], np.float32)[None], [observation["prompt"]]
                )
                policy_ms = 1e3 * (time.perf_counter() - began_s)
                timing = {"infer_ms": policy_ms}
                await connection.send(pack({"actions": actions[0], "policy_timing": timing, "server_timing": timing}))
        except ConnectionClosed:
            return
