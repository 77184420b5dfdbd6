"""The processes that keep a replica: `learner.server` on one machine, `learner.replica` on the other."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from learner.replay.reader import ReplayDataset
from tests.actor.free_ports import free_ports

PATIENCE_S = 90.0


@dataclass(kw_only=True)
class Replica:
    """Both ends of one replica; `here` has the replay, `there` gets it."""

    here: Path
    there: Path
    name: str = "test"
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    running: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, which: str) -> None:
        """Starts the `server` there or the `replica` here."""
        output = self.there if which == "server" else self.here
        own = ["algo=data_collection"] if which == "server" else ["ip=127.0.0.1", "actor.id=node-1"]
        command = [
            sys.executable, "-m", f"learner.{which}", *own, f"output_dir={output}", f"unique_identifier={self.name}",
            f"transport.request_port={self.ports[0]}", f"transport.broadcast_port={self.ports[1]}",
            "transport.dead_after_s=2", "transport.heartbeat_s=0.2",
        ]  # fmt: skip
        self.running[which] = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def kill(self, which: str) -> None:
        """Kills one with -9, and waits for its death."""
        self.running[which].kill()
        self.running.pop(which).wait()

    def stop(self) -> None:
        """Ends both in good order."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(PATIENCE_S)

    def wait_for(self, condition) -> None:
        """Waits until the copy of the replay there, as far as it is, fulfils a condition; both ends must live."""
        deadline = time.monotonic() + PATIENCE_S
        copied = ReplayDataset(self.there / self.name / "replay_buffer")
        while not condition(copied):
            for which, process in self.running.items():
                assert process.poll() is None, f"{which} ended with {process.returncode}."
            assert time.monotonic() < deadline, f"Timed out with {copied.num_episodes} episodes."
            time.sleep(0.05)
            copied.refresh()
