"""One server of the benchmark, in a process of its own; prints its ports, ends when its standard input closes."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from learner.lifetime import answer_quickly
from learner.serve.endpoint import Endpoint, EndpointConfig, EndpointThread
from learner.serve.robots import served_robot
from learner.server.assembly import policy_loader
from learner.server.gateway import Gateway
from learner.server.inference import InferenceService
from learner.server.ingest import Ingest
from learner.server.policy_watcher import PolicyWatcher
from learner.server.sealing import Sealer, warm_up
from serl_launcher.config.training import ServerConfig
from serl_launcher.config.transport import TransportConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.journal import Journal
from tools.bench_serving import floor, orders
from tools.bench_serving.model import PacedPolicy
from tools.bench_serving.orders import ServerOrder
from tools.bench_workload import bench_robot


def main() -> None:
    """Serves as ordered."""
    order = msgspec.json.decode(sys.stdin.readline(), type=ServerOrder)
    answer_quickly()
    if order.switch_interval_ms:
        sys.setswitchinterval(1e-3 * order.switch_interval_ms)
    with contextlib.ExitStack() as stack:
        ports = _SERVERS[order.kind](order, stack)
        sys.stdout.write(msgspec.json.encode(ports).decode() + "\n")
        sys.stdout.flush()
        if order.trains_inside:
            from tools.bench_serving.training import Training  # Imports torch.

            training = Training(Path(order.policies))
            stop = threading.Event()
            stack.callback(stop.set)
            threading.Thread(target=training.run, args=(stop,), daemon=True).start()
        sys.stdin.read()


def _inference(order: ServerOrder, stack: contextlib.ExitStack) -> InferenceService:
    config = ServerConfig(max_batch=order.max_batch, max_wait_ms=order.max_wait_ms, device="cpu")
    inference = InferenceService(config)
    if order.policies:
        watcher = PolicyWatcher(Path(order.policies), policy_loader(config), inference)
        watcher.look()
        watcher.start()
        stack.callback(watcher.stop)
    else:
        inference.swap(_model(order), 0)
    inference.start()
    stack.callback(inference.stop)
    return inference


def _model(order: ServerOrder) -> PacedPolicy:
    spec = bench_robot(encoding=order.encoding)  # pyright: ignore[reportArgumentType]
    return PacedPolicy(spec, model_ms=order.model_ms, per_item_ms=order.per_item_ms)


def _serve_hiors(order: ServerOrder, stack: contextlib.ExitStack) -> tuple[int, int]:
    root = Path(order.root)
    root.mkdir(parents=True, exist_ok=True)
    config = TransportConfig(
        request_port=order.request_port, broadcast_port=order.broadcast_port, keys_dir=order.keys_dir or None
    )
    journal = stack.enter_context(contextlib.closing(Journal(root / "journal", durability="os")))
    ingest = Ingest(journal)
    gateway = Gateway(
        config, spec=None, ingest=ingest, inference=_inference(order, stack), publications=root / "policies"
    )
    gateway.bind()
    stop = threading.Event()
    threads = [threading.Thread(target=gateway.run, args=(stop,))]
    if order.is_sealing:
        warm_up()
        threads.append(threading.Thread(target=_seal, args=(root / "dataset", journal, ingest, stop)))
    for thread in threads:
        thread.start()
        stack.callback(thread.join)
    stack.callback(stop.set)
    return gateway.ports


def _seal(root: Path, journal: Journal, ingest: Ingest, stop: threading.Event) -> None:
    while ingest.spec is None:
        if stop.wait(0.1):
            return
    Sealer(journal, DatasetWriter(root, ingest.spec)).run(stop)


def _serve_openpi(order: ServerOrder, stack: contextlib.ExitStack) -> tuple[int, int]:
    inference = _inference(order, stack)
    assert inference.spec is not None
    robot = served_robot(inference.spec)
    endpoint = Endpoint(EndpointConfig(port=0), inference, lambda: robot)
    thread = EndpointThread(endpoint)
    thread.start()
    stack.callback(thread.stop)
    return endpoint.port, 0


def _serve_in_loop(order: ServerOrder, stack: contextlib.ExitStack) -> tuple[int, int]:
    from tools.bench_serving.peers import InLoopServer

    server = InLoopServer(_model(order))
    stack.callback(server.stop)
    return server.start(), 0


def _serve_lerobot(order: ServerOrder, stack: contextlib.ExitStack) -> tuple[int, int]:
    root = Path(order.root)
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)  # LeRobot logs into the working directory.
    from tools.bench_serving.lerobot_peer import start_server  # Imports torch and lerobot.

    port, stop = start_server(_model(order))
    stack.callback(stop)
    return port, 0


def _serve_sockets(order: ServerOrder, stack: contextlib.ExitStack) -> tuple[int, int]:
    config = TransportConfig(request_port=0, broadcast_port=0, keys_dir=order.keys_dir or None)
    ports, stop = floor.start_server(config)
    stack.callback(stop)
    return ports


_SERVERS: dict[str, Callable[[ServerOrder, contextlib.ExitStack], tuple[int, int]]] = {
    orders.HIORS: _serve_hiors,
    orders.OPENPI: _serve_openpi,
    orders.LOOP: _serve_in_loop,
    orders.LEROBOT: _serve_lerobot,
    orders.FLOOR: _serve_sockets,
}

if __name__ == "__main__":
    main()
