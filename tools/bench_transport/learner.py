"""The learner's network side for the benchmark, in a process of its own: gateway, ingest, journal, sealing on demand.

`python -m tools.bench_transport.learner ROOT KEYS_DIR|- DURABILITY seal|drop|keep`; prints its ports, serves until
standard input closes, then prints its CPU time. What becomes of closed episodes: `seal` writes them into a dataset;
`drop` only deletes them from the journal, as sealing does at its end, so that the journal stays as small as it is in a
run and the transport is measured alone; `keep` lets the journal grow.
"""

import json
import sys
import threading
from pathlib import Path

from learner.lifetime import answer_quickly
from learner.server.gateway import Gateway
from learner.server.ingest import Ingest
from learner.server.requests import NoInference
from learner.server.sealing import Sealer, warm_up
from serl_launcher.config.transport import TransportConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.journal import Journal
from tools.bench_workload import cpu_seconds

_DROP_PERIOD_S = 0.2


def main(root: Path, keys_dir: str | None, durability: str, closed: str) -> None:
    """Serves until standard input closes."""
    answer_quickly()
    if closed == "seal":
        warm_up()  # As the server does before it opens its ports.
    config = TransportConfig(
        request_port=0, broadcast_port=0, keys_dir=keys_dir, durability=durability, dead_after_s=30.0
    )
    journal = Journal(root / "journal", durability=durability)
    ingest = Ingest(journal)
    gateway = Gateway(config, spec=None, ingest=ingest, inference=NoInference(), publications=root / "policies")
    gateway.bind()
    stop = threading.Event()
    threads = [threading.Thread(target=gateway.run, args=(stop,))]
    if closed == "seal":
        threads.append(threading.Thread(target=_seal, args=(root / "dataset", journal, ingest, stop)))
    if closed == "drop":
        threads.append(threading.Thread(target=_drop, args=(journal, stop)))
    for thread in threads:
        thread.start()
    sys.stdout.write(json.dumps(gateway.ports) + "\n")
    sys.stdout.flush()
    began_s = cpu_seconds()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    journal.close()
    sys.stdout.write(json.dumps({"cpu_s": cpu_seconds() - began_s}) + "\n")


def _seal(root: Path, journal: Journal, ingest: Ingest, stop: threading.Event) -> None:
    while ingest.spec is None:
        if stop.wait(0.1):
            return
    Sealer(journal, DatasetWriter(root, ingest.spec)).run(stop)


def _drop(journal: Journal, stop: threading.Event) -> None:
    while not stop.wait(_DROP_PERIOD_S):
        closed = journal.closed_episodes()
        if closed:
            journal.mark_sealed(dict.fromkeys(closed, 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2], sys.argv[3], sys.argv[4])
