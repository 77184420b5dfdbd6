"""What is measured. Each scenario returns figures with what is asked of them."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from serl_launcher.publication import Publisher
from tools import keys
from tools.bench_results import Result, ratio
from tools.bench_serving.orders import FLOOR, HIORS, LEROBOT, LOOP, OPENPI, ClientOrder, ClientResult, ServerOrder
from tools.bench_serving.processes import finish_clients, run_clients, serving, start_clients, streaming, training

BASE_POLICY = Path(__file__).parents[2] / "robot_infra" / "assets" / "sim_pnp_base"
MODEL_MS = 20.0
"""Of the stand-in model, about a large policy on a fast GPU."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where files go, and how long each measurement takes."""

    root: Path
    seconds: float

    def fresh(self, name: str) -> Path:
        """Returns an empty directory."""
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def keys_for(self, name: str, actors: Sequence[str]) -> str:
        """Returns a directory with keys of a learner and of these actors."""
        path = self.fresh(f"{name}-keys") / "keys"
        keys.init(path)
        for actor in actors:
            keys.add(path, actor)
        return str(path)


def overhead(bench: Bench) -> list[Result]:
    """One actor, three images of 224x224: the round trip beyond the model; first the sockets without our code."""
    figures = []
    for name, kind, encoding, is_secret in (
        ("sockets alone/curve/raw", FLOOR, "raw", True),
        ("hiors/curve/raw", HIORS, "raw", True), ("hiors/curve/jpeg", HIORS, "jpeg", True),
        ("hiors/plain/raw", HIORS, "raw", False), ("hiors/websocket", OPENPI, "raw", False),
        ("openpi pattern/websocket", LOOP, "raw", False), ("lerobot/grpc", LEROBOT, "raw", False),
    ):  # fmt: skip
        order = ServerOrder(kind=kind, encoding=encoding, max_wait_ms=0.0)
        [result] = _measure(bench, order, 1, is_secret=is_secret)
        beyond = np.subtract(result.round_trip_ms, result.model_ms)
        asked = (1.0, 3.0) if name == "hiors/curve/raw" else (None, None)
        figures += [
            Result(f"overhead/{name}/{label}", float(np.percentile(beyond, percent)), "ms", at_most=limit)
            for label, percent, limit in (("median", 50, asked[0]), ("p99", 99, asked[1]))
        ]
    return figures


def many_actors(bench: Bench) -> list[Result]:
    """Sixteen actors at 10 Hz: who is answered too late; and LeRobot's and openpi's pattern with as many."""
    figures = []
    for name, kind in (("hiors", HIORS), ("hiors/websocket", OPENPI), ("openpi pattern", LOOP)):
        results = _measure(bench, ServerOrder(kind=kind, model_ms=MODEL_MS, per_item_ms=0.5), 16, hz=10.0)
        trips = _trips(results)
        num_missed = sum(result.num_missed for result in results)
        limit = 0 if name == "hiors" else None
        figures.append(Result(f"16 actors at 10 Hz/{name}/deadline misses", num_missed, "", at_most=limit))
        figures.append(Result(f"16 actors at 10 Hz/{name}/p99", float(np.percentile(trips, 99)), "ms"))
    return figures


def throughput(bench: Bench) -> list[Result]:
    """Answers per second of 1 to 16 actors, with batches and one at a time."""
    figures, at_eight = [], {}
    for num_actors in (1, 2, 4, 8, 16):
        for name, max_batch in (("batches", 16), ("one at a time", 1)):
            order = ServerOrder(kind=HIORS, model_ms=MODEL_MS, per_item_ms=0.2, max_batch=max_batch, encoding="jpeg")
            results = _measure(bench, order, num_actors)
            rate = sum(len(result.round_trip_ms) for result in results) / bench.seconds
            figure = Result(f"throughput/{num_actors} actors/{name}", rate, "answers/s")
            figures.append(figure)
            if num_actors == 8:
                at_eight[name] = figure
    gain = ratio("throughput/8 actors/gain of batches", at_eight["batches"], at_eight["one at a time"], at_least=3.0)
    return [*figures, gain]


def while_training(bench: Bench) -> list[Result]:
    """The tail of a real policy's answers, idle, with a trainer beside it, and with the trainer inside."""
    figures = {}
    for name in ("idle", "trainer beside", "trainer inside"):
        root = bench.fresh(f"training-{name.replace(' ', '-')}")
        policies = root / "policies"
        Publisher(policies).publish(lambda path: shutil.copytree(BASE_POLICY, path, dirs_exist_ok=True) and None, 1)
        order = ServerOrder(
            kind=HIORS, root=str(root / "server"), policies=str(policies), trains_inside=name == "trainer inside",
            max_wait_ms=0.0,
        )  # fmt: skip
        with serving(order) as (ports, _):
            client = ClientOrder(
                kind=HIORS, actor_id="actor-0", ports=ports, root=str(root), seconds=2 * bench.seconds,
                spec=str(BASE_POLICY / "spec.json"), hz=10.0,
            )  # fmt: skip
            if name == "trainer beside":
                with training(str(policies)):
                    [result] = run_clients([client])
            else:
                [result] = run_clients([client])
        figures[name] = Result(f"training/{name}/p99", float(np.percentile(result.round_trip_ms, 99)), "ms")
    idle, beside, inside = figures["idle"], figures["trainer beside"], figures["trainer inside"]
    slowdown = Result("training/beside to idle", beside.value / idle.value, "x", at_most=1.5)
    return [*figures.values(), slowdown, Result("training/inside to idle", inside.value / idle.value, "x")]


def while_recording(bench: Bench) -> list[Result]:
    """The tail of answers while eight actors record and episodes are sealed: in the same process, and in another.

    The difference between the two is what an inference process of its own would bring; `python's interval` is the
    same process with the interpreter's default of 5 ms before a computing thread gives way.
    """
    figures = {}
    for name, where, interval_ms in (
        ("idle", None, 0.0), ("same process", "same", 0.0), ("another process", "other", 0.0),
        ("same process, python's interval", "same", 5.0),
    ):  # fmt: skip
        root = bench.fresh("recording")
        order = ServerOrder(
            kind=HIORS, root=str(root / "server"), model_ms=MODEL_MS, encoding="jpeg", is_sealing=True,
            switch_interval_ms=interval_ms,
        )  # fmt: skip
        with contextlib.ExitStack() as stack:
            ports, _ = stack.enter_context(serving(order))
            if where is not None:
                beside = msgspec.structs.replace(order, root=str(root / "beside"))
                into = ports if where == "same" else stack.enter_context(serving(beside))[0]
                stack.enter_context(streaming(into, root, num_actors=8, hz=10.0))
            client = ClientOrder(
                kind=HIORS, actor_id="actor-0", ports=ports, root=str(root), seconds=2 * bench.seconds, hz=20.0,
                encoding="jpeg",
            )  # fmt: skip
            [result] = run_clients([client])
        beyond = np.subtract(result.round_trip_ms, result.model_ms)
        figures[name] = beyond
    rows = [
        Result(f"recording/{name}/{label}", float(np.percentile(beyond, percent)), "ms")
        for name, beyond in figures.items()
        for label, percent in (("median", 50), ("p99", 99))
    ]
    tails = {name: MODEL_MS + float(np.percentile(beyond, 99)) for name, beyond in figures.items()}
    return [
        *rows,
        Result("recording/same process to idle, p99 with the model", tails["same process"] / tails["idle"], "x"),
        Result("recording/another process to idle, p99 with the model", tails["another process"] / tails["idle"], "x"),
    ]


def restart(bench: Bench) -> list[Result]:
    """The server is killed while four actors ask, and started again: until the first action, and who got no answer."""
    root = bench.fresh("restart")
    order = ServerOrder(kind=HIORS, root=str(root / "server"), model_ms=MODEL_MS)
    with serving(order) as (ports, process):
        clients = start_clients(
            [
                ClientOrder(
                    kind=HIORS, actor_id=f"actor-{number}", ports=ports, root=str(root), seconds=40.0,
                    deadline_ms=1000.0,
                )
                for number in range(4)
            ]
        )  # fmt: skip
        time.sleep(20.0)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    again = ServerOrder(
        kind=HIORS, root=str(root / "server"), model_ms=MODEL_MS, request_port=ports[0], broadcast_port=ports[1]
    )
    with serving(again):
        ready_s = time.monotonic()
        results = finish_clients(clients)
    firsts = [min((at_s for at_s in result.answered_s if at_s > ready_s), default=np.inf) for result in results]
    return [
        Result("restart/actors that recovered", float(np.isfinite(firsts).sum()), "of 4", at_least=4),
        Result("restart/last first action after the ports are open", max(firsts) - ready_s, "s"),
        Result("restart/questions that ended at their deadline", sum(each.num_missed for each in results), ""),
    ]


def _measure(
    bench: Bench, order: ServerOrder, num_actors: int, *, is_secret: bool = False, hz: float = 0.0
) -> list[ClientResult]:
    """Runs so many actors against one server; its directory and keys are filled in here."""
    root = bench.fresh("run")
    actors = [f"actor-{number}" for number in range(num_actors)]
    keys_dir = bench.keys_for("run", actors) if is_secret else ""
    order = msgspec.structs.replace(order, root=str(root / "server"), keys_dir=keys_dir)
    with serving(order) as (ports, _):
        return run_clients(
            [
                ClientOrder(
                    kind=order.kind, actor_id=actor, ports=ports, encoding=order.encoding, keys_dir=keys_dir,
                    root=str(root), hz=hz, seconds=bench.seconds,
                )
                for actor in actors
            ]
        )  # fmt: skip


def _trips(results: Sequence[ClientResult]) -> list[float]:
    return [trip for result in results for trip in result.round_trip_ms]
