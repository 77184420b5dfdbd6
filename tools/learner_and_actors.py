"""One learner and actors as processes of their own, as a user would start them, with what they cost."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from serl_launcher.errors import HiorsError
from serl_launcher.status import JSON, read_status
from tools.demo.ports import free_port
from tools.demo.processes import Process

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
POLL_S = 0.2
END_S = 120.0
RUN = "run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Resident memory of a process in MiB.

    Example:
        memory_of(os.getpid())
    """

    total: float
    own: float
    """Anonymous pages: what Python and its libraries allocated."""
    files: float
    """Pages of mapped files, e.g. of the spool; the system takes them back when it needs them."""


class LearnerAndActors:
    """Starts a learner and actors of one task in a directory; a context manager that leaves none behind."""

    def __init__(self, root: Path, *, shared: Sequence[str], learner: Sequence[str], actors: Sequence[Sequence[str]]):
        """Prepares the processes.

        Args:
            root: Where the run goes.
            shared: Overrides for both sides.
            learner: Overrides for the learner.
            actors: Overrides for each actor; their ids are `actor-0`, `actor-1`, ...
        """
        self.root = root / RUN
        self.ports = free_port(), free_port()
        network = [f"transport.request_port={self.ports[0]}", f"transport.broadcast_port={self.ports[1]}"]
        common = [*shared, *network, f"output_dir={root}", f"unique_identifier={RUN}"]
        self.learner = Process(
            "learner", [sys.executable, "-m", "learner", *common, *learner], self.root / "logs" / "learner-output.log"
        )
        self.actor_ids = [f"actor-{number}" for number in range(len(actors))]
        self.actors = [
            Process(
                name,
                [sys.executable, "-m", "actor", *common, f"actor.id={name}", *more],
                self.root / "logs" / f"{name}.log",
            )
            for name, more in zip(self.actor_ids, actors, strict=True)
        ]

    def __enter__(self) -> Self:
        """Starts the learner, then the actors."""
        for process in (self.learner, *self.actors):
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every process that still runs."""
        for process in (*self.actors, self.learner):
            process.ask_to_stop()
        for process in (*self.actors, self.learner):
            process.stop()

    def status(self, name: str) -> dict[str, JSON]:
        """Returns what a process last said about itself, e.g. `actor-0`; empty before it did."""
        return read_status(self.root / "status" / f"{name if name == 'learner' else f'actor-{name}'}.json") or {}

    def number(self, actor_id: str, key: str) -> float:
        """Returns a number of an actor's status, 0 before there is one."""
        value = self.status(actor_id).get(key, 0)
        return float(value) if isinstance(value, int | float) else 0.0

    def require_running(self) -> None:
        """Raises HiorsError with the end of the log where a process has ended."""
        for process in (self.learner, *self.actors):
            if process.poll() is not None:
                raise HiorsError(
                    f"The {process.name} ended with status {process.poll()}. End of {process.log}:\n"
                    f"{process.log_tail()}"
                )

    def wait_until_playing(self, timeout_s: float = 120.0) -> None:
        """Waits until every actor has begun an episode; raises HiorsError where one does not."""
        deadline_s = time.monotonic() + timeout_s
        while any(self.number(name, "num_started") < 1 for name in self.actor_ids):
            self.require_running()
            if time.monotonic() > deadline_s:
                raise HiorsError(f"Expected every actor to play within {timeout_s:.0f} s; see {self.root / 'logs'}.")
            time.sleep(POLL_S)

    def end_actors(self) -> None:
        """Ends the actors in good order: they hand over what they recorded."""
        for process in self.actors:
            process.ask_to_stop()
        for process in self.actors:
            process.stop(END_S)


def memory_of(pid: int) -> Memory:
    """Returns the resident memory of a process, from /proc."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) / 1024
    return Memory(total=found["VmRSS"], own=found["RssAnon"], files=found["RssFile"])


def cpu_seconds_of(pid: int) -> float:
    """Returns the CPU time of a process and everything below it that still runs, from /proc."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # It has ended meanwhile.
            continue
        number = int(stat.parent.name)
        parents[number], seconds[number] = int(fields[1]), (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_S

    def is_below(number: int) -> bool:
        while number not in (0, pid):
            number = parents.get(number, 0)
        return number == pid

    return sum(used for number, used in seconds.items() if is_below(number))
