"""One actor of the benchmark, in a process of its own: asks, waits, notes how long it took."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from websockets.sync.client import connect

from actor.spool import Spool
from learner.serve.packing import pack, unpack
from serl_launcher.allocator import keep_freed_memory
from serl_launcher.config.transport import TransportConfig
from serl_launcher.errors import DeadlineExceeded, PolicyError, Refused
from serl_launcher.events import encode_observation
from serl_launcher.specs import RobotSpec
from serl_launcher.transport.act_frames import encode_observation_frames
from serl_launcher.transport.client import LearnerClient
from serl_launcher.types import Observation
from tools.bench_serving import orders
from tools.bench_serving.floor import FloorClient
from tools.bench_serving.orders import ClientOrder, ClientResult
from tools.bench_workload import NUM_JOINTS, PROMPT, bench_robot, make_frames

Ask = Callable[[Observation], float]
"""Asks for a chunk, waits for it and returns what the model took, in milliseconds."""
_NUM_FRAMES = 8
_WARM_UP = 10


def main() -> None:
    """Measures as ordered; prints the result."""
    keep_freed_memory()  # As an actor does.
    order = msgspec.json.decode(sys.stdin.readline(), type=ClientOrder)
    spec = _spec_of(order)
    with contextlib.ExitStack() as stack:
        ask = _CLIENTS[order.kind](order, spec, stack)
        seen = _observations(spec)
        for number in range(_WARM_UP):
            _try(ask, seen[number % len(seen)])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        result = _measure(order, ask, seen, start_at_s=float(sys.stdin.readline()))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def _measure(order: ClientOrder, ask: Ask, seen: list[Observation], *, start_at_s: float) -> ClientResult:
    time.sleep(max(0.0, start_at_s - time.monotonic()))
    result = ClientResult(round_trip_ms=[], model_ms=[], num_missed=0)
    period_s = 1 / order.hz if order.hz else 0.0
    number, end_s = 0, start_at_s + order.seconds
    while (now := time.monotonic()) < end_s:
        due_s = start_at_s + number * period_s if period_s else now
        time.sleep(max(0.0, due_s - now))
        began_s = time.monotonic()
        model_ms = _try(ask, seen[number % len(seen)])
        ended_s = time.monotonic()
        # An actor of 10 Hz that is answered after the next tick began has missed it.
        is_late = model_ms is None or (period_s > 0 and ended_s > max(due_s, began_s) + period_s)
        result.num_missed += is_late
        if model_ms is not None:
            result.round_trip_ms.append(1e3 * (ended_s - began_s))
            result.model_ms.append(model_ms)
            result.answered_s.append(ended_s)
        number += 1
    return result


def _try(ask: Ask, observation: Observation) -> float | None:
    try:
        return ask(observation)
    except (DeadlineExceeded, PolicyError, Refused):
        return None


def _spec_of(order: ClientOrder) -> RobotSpec:
    if order.spec:
        return msgspec.json.decode(Path(order.spec).read_bytes(), type=RobotSpec)
    return bench_robot(encoding=order.encoding)  # pyright: ignore[reportArgumentType]


def _observations(spec: RobotSpec) -> list[Observation]:
    shown = make_frames(_NUM_FRAMES, bench_robot(size=spec.cameras[0].height, cameras=len(spec.cameras)))
    state = np.zeros(spec.state_dim if spec.state_dim else NUM_JOINTS, np.float32)
    return [
        Observation(images=dict(zip(spec.camera_names, frame, strict=True)), state=state, prompt=PROMPT)
        for frame in shown
    ]


def _ask_hiors(order: ClientOrder, spec: RobotSpec, stack: contextlib.ExitStack) -> Ask:
    spool = Spool(Path(order.root) / "spool" / order.actor_id, max_bytes=2**26, when_full="pause")
    stack.callback(spool.close)
    config = TransportConfig(
        request_port=order.ports[0], broadcast_port=order.ports[1], keys_dir=order.keys_dir or None
    )
    client = LearnerClient(config, "127.0.0.1", actor_id=order.actor_id, spec=spec, spool=spool)
    client.start()
    stack.callback(client.close)

    def ask(observation: Observation) -> float:
        [chunk] = client.act([observation], timeout_s=1e-3 * order.deadline_ms)
        return chunk.timings_ms["model"]

    return ask


def _ask_websocket(order: ClientOrder, spec: RobotSpec, stack: contextlib.ExitStack) -> Ask:
    del spec
    connection = stack.enter_context(connect(f"ws://127.0.0.1:{order.ports[0]}", compression=None, max_size=None))
    connection.recv()

    def ask(observation: Observation) -> float:
        connection.send(pack({"images": observation.images, "state": observation.state, "prompt": observation.prompt}))
        answer = connection.recv()
        assert isinstance(answer, bytes), answer
        return unpack(answer)["policy_timing"]["infer_ms"]

    return ask


def _ask_lerobot(order: ClientOrder, spec: RobotSpec, stack: contextlib.ExitStack) -> Ask:
    del spec
    os.chdir(order.root)  # LeRobot logs into the working directory.
    from tools.bench_serving.lerobot_peer import LeRobotClient  # Imports torch and lerobot.

    client = LeRobotClient(order.ports[0])
    stack.callback(client.close)

    def ask(observation: Observation) -> float:
        client.act(observation.images, observation.state, observation.prompt)
        return 0.0

    return ask


def _ask_sockets(order: ClientOrder, spec: RobotSpec, stack: contextlib.ExitStack) -> Ask:
    config = TransportConfig(
        request_port=order.ports[0], broadcast_port=order.ports[1], keys_dir=order.keys_dir or None
    )
    client = FloorClient(config, order.actor_id)
    stack.callback(client.close)

    def ask(observation: Observation) -> float:
        client.ask([b"", *encode_observation_frames(encode_observation(observation, spec))])
        return 0.0

    return ask


_CLIENTS: dict[str, Callable[[ClientOrder, RobotSpec, contextlib.ExitStack], Ask]] = {
    orders.HIORS: _ask_hiors,
    orders.OPENPI: _ask_websocket,
    orders.LOOP: _ask_websocket,
    orders.LEROBOT: _ask_lerobot,
    orders.FLOOR: _ask_sockets,
}

if __name__ == "__main__":
    main()
