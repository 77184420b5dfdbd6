"""How often the journal syncs before it acknowledges, counted at the system's own call."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NUM_ROUNDS, NUM_ACTORS = 5, 4
COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
static int count;
int hiors_num_syncs(void) { return count; }
int fdatasync(int fd) { count++; return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
int fsync(int fd) { count++; return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
"""
COMMITS = f"""
import ctypes, json, sys
from pathlib import Path
from learner.server.ingest import Ingest, StepBatch
from serl_launcher.events import encode_event
from serl_launcher.journal import Journal
from serl_launcher.transport.messages import Hello
from tests.transport_rig import SPEC, episode

num_syncs = ctypes.CDLL(None).hiors_num_syncs
journal = Journal(Path(sys.argv[1]), durability=sys.argv[2])
ingest = Ingest(journal)
actors = [f"a{{number}}" for number in range({NUM_ACTORS})]
for actor in actors:
    ingest.admit(Hello(actor, 1, SPEC.digest(), SPEC, "spool", 0))
counts = []
for round in range({NUM_ROUNDS}):
    batches = [
        StepBatch(actor_id=actor, epoch=1, spool_id="spool", first_seq=1 + 4 * round,
                  events=[encode_event(event) for event in episode(f"{{actor}}-{{round}}", 2)])
        for actor in actors
    ]
    before = num_syncs()
    for group in [batches] if ingest.is_grouped else [[batch] for batch in batches]:
        assert all(committed.error is None for committed in ingest.commit(group))
    counts.append(num_syncs() - before)
print(json.dumps([counts, journal._store.flags()["metasync"]]))
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that counts syncs of the process that it is loaded into."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    built = tmp_path_factory.mktemp("counter") / "counter.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(built), "-ldl"]
    subprocess.run(command, input=COUNTER.encode(), check=True)
    return built


@pytest.mark.parametrize(("durability", "num_syncs"), [("always", NUM_ACTORS), ("group", 1), ("os", 0)])
def test_events_are_synced_before_they_are_acknowledged(
    tmp_path: Path, counter: Path, durability: str, num_syncs: int
) -> None:
    command = [sys.executable, "-c", COMMITS, str(tmp_path / "journal"), durability]
    environment = {**os.environ, "LD_PRELOAD": str(counter)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts, is_root_synced = json.loads(done.stdout)
    assert counts == [num_syncs] * NUM_ROUNDS
    assert is_root_synced is (durability != "os"), "the root page is written with O_DSYNC, which is no call of its own"
