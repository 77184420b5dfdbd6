"""Drives the scripts of `peers`: other transports, in processes (and where needed environments) of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tools.bench_transport.ours import Throughput, window_of

PEERS = Path(__file__).parent / "peers"
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
_START_S = {"bare_curve": 2.0, "lz4_pickle": 3.0, "lerobot_grpc": 25.0, "reverb_insert": 8.0}
"""Time that actors are given to import what they need."""


def measure_peer(
    script: str, frames: Path, *, name: str, num_actors: int, seconds: float, python: str = sys.executable
) -> Throughput:
    """Returns what `num_actors` processes of a peer's pattern get through to one server.

    Args:
        script: Name of a script in `peers`.
        frames: Pictures to send, a .npy file.
        name: How the figure is called.
        num_actors: Sending processes.
        seconds: How long they send.
        python: Interpreter of the peer's environment.

    Raises:
        RuntimeError: The script failed; its own message is on standard error.
    """
    found = _answers([python, str(PEERS / f"{script}.py")], script, frames, num_actors=num_actors, seconds=seconds)
    return Throughput(
        name=name,
        num_actors=num_actors,
        steps_per_s=sum(each["steps"] / each["seconds"] for each in found),
        p50_ms=max(each["latencies_ms"][0] for each in found),
        p99_ms=max(each["latencies_ms"][1] for each in found),
        cpu_ms_per_step=float("nan"),
    )


def _answers(command: list[str], script: str, frames: Path, *, num_actors: int, seconds: float) -> list[dict]:
    """Runs a server and its actors; returns what each actor measured."""
    server = subprocess.Popen(
        [*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise RuntimeError(f"The server of {script} did not start; see above.")
        start_at_s = time.monotonic() + _START_S[script] + 0.5 * num_actors
        order = ["send", str(json.loads(line)), str(frames), str(start_at_s), str(seconds)]
        environment = {**_ENVIRONMENT, "BENCH_WINDOW": str(window_of(num_actors))}
        actors = [
            subprocess.Popen([*command, *order], stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(num_actors)
        ]
        answers = [actor.communicate(timeout=900)[0] for actor in actors]
        if any(actor.returncode for actor in actors):
            raise RuntimeError(f"An actor of {script} failed; see above.")
    finally:
        server.kill()
        server.wait()
    return [json.loads(answer) for answer in answers]
