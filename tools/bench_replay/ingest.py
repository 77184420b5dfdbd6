"""How long a step waits to be committed while episodes are sealed and a checkpoint is written, and while not."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from tools.bench_results import Result
from tools.bench_transport.actor import Order
from tools.bench_transport.ours import learner_process, run_actors

NUM_ACTORS = 4
RATE_HZ = 20.0
EPISODE_STEPS = 50
CHECKPOINT_MB = 200

_WRITE_CHECKPOINTS = """
import sys, time, torch
from pathlib import Path
from learner.trainer.checkpoints import Checkpoints, TrainerState
checkpoints, count = Checkpoints(Path(sys.argv[1]), keep=2), 0
weights = {"weights": torch.zeros(int(sys.argv[2]) * 2**18)}
state = TrainerState(tensors=weights, algorithm={}, mixture={}, seconds_trained=0.0)
while True:
    began, count = time.monotonic(), count + 1
    checkpoints.save(count, lambda policy: (policy / "config.json").write_text("{}"), state)
    time.sleep(max(0.0, 5.0 - (time.monotonic() - began)))
"""


def ingest_results(root: Path, spools: Path, *, seconds: float) -> list[Result]:
    """Returns p99 from recording to acknowledgement: alone, while sealing, while sealing and writing checkpoints.

    Over the steps of all actors, each of which records an episode after the other.
    """
    alone = _p99(root / "alone", spools / "alone", seconds, is_sealing=False)
    sealing = _p99(root / "sealing", spools / "sealing", seconds, is_sealing=True)
    command = [sys.executable, "-c", _WRITE_CHECKPOINTS, str(root / "checkpoint"), str(CHECKPOINT_MB)]
    writer = subprocess.Popen(command)
    try:
        checkpoint = _p99(root / "both", spools / "both", seconds, is_sealing=True)
    finally:
        writer.kill()
        writer.wait()
    return [
        Result("ingest p99/alone", alone, "ms"),
        Result("ingest p99/sealing", sealing, "ms"),
        Result(f"ingest p99/sealing and {CHECKPOINT_MB} MB checkpoints", checkpoint, "ms"),
        Result("ingest p99/sealing to alone", sealing / alone, "x", at_most=2.0),
        Result("ingest p99/checkpoint to alone", checkpoint / alone, "x", at_most=2.0),
    ]


def _p99(root: Path, spools: Path, seconds: float, *, is_sealing: bool) -> float:
    with learner_process(root, keys_dir=None, closed="seal" if is_sealing else "keep") as (_, ports):
        orders = [
            Order(
                actor_id=f"actor-{number}", spool=str(spools / f"actor-{number}"), ports=ports, keys_dir=None,
                encoding="jpeg", size=224, seconds=seconds, window=1000, rate_hz=RATE_HZ, episode_steps=EPISODE_STEPS,
            )
            for number in range(NUM_ACTORS)
        ]  # fmt: skip
        return float(np.percentile([wait for each in run_actors(orders) for wait in each["all_latencies_ms"]], 99))
