"""`python -m learner` with two ranks, one of which is killed again and again."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serl_launcher.metrics import read_rows
from serl_launcher.status import read_status
from serl_launcher.types import Outcome
from tests.learner.trainer.test_ranks import overrides

NUM_KILLS, NUM_UPDATES = 20, 12_000
"""A life ends a second or two after it got further than the one before: some hundred updates."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def ranks_of(run_name):
    """Returns the process ids of the trainer ranks of a run, by their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if re.search(r"-m\0learner\.trainer\0", command) and f"unique_identifier={run_name}\0" in command:
            found.append(int(path.parent.name))
    return found


def test_twenty_killed_ranks_end_in_the_same_number_of_updates(run, tokenizer_path):
    run.record(*[Outcome.SUCCESS] * 3, root=run.demonstrations)
    more = [
        "training.num_cpu_ranks=2", "training.checkpoint_period=25", "logging.log_period=25",
        f"algo.max_updates={NUM_UPDATES}",
        "transport.request_port=0", "transport.broadcast_port=0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "learner", *overrides(run, tokenizer_path, "killed", *more)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    directory = Path(run.config.output_dir) / "killed"
    rng, killed, last_seen = random.Random(0), 0, -1
    try:
        while process.poll() is None:
            time.sleep(rng.uniform(0.05, 1.0))
            status = read_status(directory / "status" / "trainer.json") or {}
            updates, ranks = int(status.get("updates", 0)), ranks_of("killed")
            # Only a run that got further than the last time is killed again: otherwise nothing would ever be learned.
            if killed < NUM_KILLS and len(ranks) == 2 and updates > last_seen:
                os.kill(rng.choice(ranks), signal.SIGKILL)
                killed, last_seen = killed + 1, updates
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0
    assert killed == NUM_KILLS
    status = read_status(directory / "status" / "trainer.json")
    assert status is not None
    assert status["updates"] == NUM_UPDATES
    assert sorted({row["step"] for row in read_rows(directory / "metrics" / "trainer.jsonl")})[-1] == NUM_UPDATES
